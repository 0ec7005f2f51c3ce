// What the layers of encoders compute beside their products: dropout, dropout + residual + layer norm, GELU. Rows are
// float or bfloat16, sums are float. Masks of dropout are never stored: each pass draws them again from their seed.
#include "philox.h"
#include "rows.h"

// ---- dropout, arXiv:1207.0580 ----------------------------------------------------------------------------------------

// keep[i], i < n: 0 with probability p, else 1 / (1 - p). Words of the counters first, first + 1, ...: the lower half of the
// first word of each, then the upper halves, then those of the second words, and so on. keep has room for n rounded up to
// eights.
static void draw(float* keep, i64 n, uint64_t first, uint64_t seed, float p) {
    i64 part = (n + 7) / 8;
    uint32_t below = dropped_below(p);
    float scale = kept_by(p);
#ifdef HAS_VECTORS
    const __m512i low = _mm512_set1_epi32(0xffff), limit = _mm512_set1_epi32(int(below));
    const __m512 by = _mm512_set1_ps(scale);
    for (i64 i = 0; i < part; i += 16) {
        __m512i words[4], high = _mm512_set1_epi32(int((first + i) >> 32));
        words[0] = _mm512_add_epi32(_mm512_set1_epi32(int(first + i)), counting());
        words[1] = _mm512_mask_add_epi32(high, _mm512_cmplt_epu32_mask(words[0], _mm512_set1_epi32(int(first + i))), high,
                                         _mm512_set1_epi32(1));
        words[2] = words[3] = _mm512_setzero_si512();
        philox(words, seed);
        for (i64 h = 0; h < 8; h++) {
            __m512i half = h % 2 ? _mm512_srli_epi32(words[h / 2], 16) : _mm512_and_si512(words[h / 2], low);
            __m512 kept = _mm512_maskz_mov_ps(_mm512_cmpge_epu32_mask(half, limit), by);
            _mm512_mask_storeu_ps(keep + h * part + i, some(part - i), kept);
        }
    }
#else
#pragma omp simd
    for (i64 i = 0; i < part; i++) {
        uint64_t counter = first + uint64_t(i);
        uint32_t a = uint32_t(counter), b = uint32_t(counter >> 32), c = 0, d = 0;
        philox(a, b, c, d, seed);
        keep[i] = (a & 0xffff) < below ? 0.0f : scale;
        keep[i + part] = a >> 16 < below ? 0.0f : scale;
        keep[i + 2 * part] = (b & 0xffff) < below ? 0.0f : scale;
        keep[i + 3 * part] = b >> 16 < below ? 0.0f : scale;
        keep[i + 4 * part] = (c & 0xffff) < below ? 0.0f : scale;
        keep[i + 5 * part] = c >> 16 < below ? 0.0f : scale;
        keep[i + 6 * part] = (d & 0xffff) < below ? 0.0f : scale;
        keep[i + 7 * part] = d >> 16 < below ? 0.0f : scale;
    }
#endif
}

// y = keep * x; the gradient goes the same way. x and y may be the same.
template <class T> static void dropout(const void* x_, void* y_, i64 n, i64 seed, float p, int threads) {
    const T* x = (const T*)x_;
    T* y = (T*)y_;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 start = 0; start < n; start += CHUNK) {
        i64 count = start + CHUNK < n ? CHUNK : n - start;
        float* keep = scratch(CHUNK);
        draw(keep, count, start / 8, seed, p);
#pragma omp simd
        for (i64 i = 0; i < count; i++) put(y + start + i, get(x[start + i]) * keep[i]);
    }
}
BOTH(dropout, (const void* x, void* y, i64 n, i64 seed, float p, int threads), (x, y, n, seed, p, threads))

// ---- residual + layer norm: s = r + keep * x, y = w * (s - mean(s)) / sqrt(var(s) + eps) + b, arXiv:1607.06450 --------

template <class T>
static void add_norm(const void* x_, const void* r_, const void* w, const void* b, void* s_, void* y_, float* mean,
                     float* rstd, i64 rows, i64 width, float eps, i64 seed, float p, int threads) {
    const T *x = (const T*)x_, *r = (const T*)r_;
    T *s = (T*)s_, *y = (T*)y_;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 i = 0; i < rows; i++) {
        float* keep = p > 0 ? scratch(width + 8) : nullptr;
        if (keep) draw(keep, width, i * ((width + 7) / 8), seed, p);
        add_row(x + i * width, r + i * width, keep, s + i * width, width);
        layer_norm_row(s + i * width, (const T*)w, (const T*)b, y + i * width, width, eps, mean + i, rstd + i);
    }
}
BOTH(add_norm,
     (const void* x, const void* r, const void* w, const void* b, void* s, void* y, float* mean, float* rstd, i64 rows,
      i64 width, float eps, i64 seed, float p, int threads),
     (x, r, w, b, s, y, mean, rstd, rows, width, eps, seed, p, threads))

// dr = rstd * (g - mean(g) - shat * mean(g * shat)), g = dy * w, shat = (s - mean) * rstd; dx = keep * dr (null without
// dropout). sums (threads, 2, width), or null, gets those of w and b for each thread.
template <class T>
static void add_norm_backward(const void* s_, const void* w_, const float* mean, const float* rstd, const void* dy_,
                              void* dr_, void* dx_, float* sums, i64 rows, i64 width, i64 seed, float p, int threads) {
    const T *s = (const T*)s_, *w = (const T*)w_, *dy = (const T*)dy_;
    T *dr = (T*)dr_, *dx = (T*)dx_;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int t = 0; t < threads; t++) {
        float *of_w = sums ? sums + 2 * t * width : nullptr, *of_b = sums ? of_w + width : nullptr;
        for (i64 i = rows * t / threads; i < rows * (t + 1) / threads; i++) {
            float* keep = dx ? scratch(width + 8) : nullptr;
            if (keep) draw(keep, width, i * ((width + 7) / 8), seed, p);
            layer_norm_row_back(s + i * width, w, mean[i], rstd[i], dy + i * width, keep, dr + i * width,
                                dx ? dx + i * width : nullptr, of_w, of_b, width);
        }
    }
}
BOTH(add_norm_backward,
     (const void* s, const void* w, const float* mean, const float* rstd, const void* dy, void* dr, void* dx, float* sums,
      i64 rows, i64 width, i64 seed, float p, int threads),
     (s, w, mean, rstd, dy, dr, dx, sums, rows, width, seed, p, threads))

// ---- x * Phi(x) (rows.h) ------------------------------------------------------------------------------------------------

template <class T> static void gelu(const void* x, void* y, i64 n, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 i = 0; i < n; i += CHUNK) gelu_row((const T*)x + i, (T*)y + i, CHUNK < n - i ? CHUNK : n - i);
}
BOTH(gelu, (const void* x, void* y, i64 n, int threads), (x, y, n, threads))

template <class T> static void gelu_backward(const void* x, const void* dy, void* dx, i64 n, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 i = 0; i < n; i += CHUNK)
        gelu_row_back((const T*)x + i, (const T*)dy + i, (T*)dx + i, CHUNK < n - i ? CHUNK : n - i);
}
BOTH(gelu_backward, (const void* x, const void* dy, void* dx, i64 n, int threads), (x, dy, dx, n, threads))

// ---- attention of short rows that see themselves in both directions, arXiv:1706.03762 ---------------------------------
// Row r's tokens are offsets[r] to offsets[r + 1] - 1; heads lie side by side, tokens `..._stride` elements apart. A head
// of a row is computed at once, in float, within the cache: shares = keep * softmax(scale * q k^T), out = shares v.

// As many floats as the processor takes at once, wherever they lie: wider vectors the compiler keeps in memory.
#if defined(__AVX512F__)
const i64 LANE = 16;
#elif defined(__AVX__)
const i64 LANE = 8;
#else
const i64 LANE = 4;
#endif
typedef float lane __attribute__((vector_size(LANE * sizeof(float)), aligned(4)));

template <int ROWS, int LANES>
static inline void tile(float* c, i64 width, const float* a, i64 down, i64 along, const float* b, i64 b_width, i64 depth) {
    lane sums[ROWS][LANES] = {};
    for (i64 k = 0; k < depth; k++)
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < LANES; j++)
                sums[i][j] += a[i * down + k * along] * *(const lane*)(b + k * b_width + j * LANE);
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < LANES; j++) *(lane*)(c + i * width + j * LANE) = sums[i][j];
}

// c (rows, columns) = a (rows, depth) b (depth, columns); columns in whole lanes. Element (i, k) of a stands at
// i * down + k * along; rows of c and b are `width` and `b_width` apart.
static void product(float* c, i64 width, const float* a, i64 down, i64 along, const float* b, i64 b_width, i64 rows,
                    i64 columns, i64 depth) {
    for (i64 j = 0; j < columns; j += 2 * LANE) {
        bool both = j + LANE < columns;
        i64 i = 0;
        for (; i + 4 <= rows; i += 4)
            both ? tile<4, 2>(c + i * width + j, width, a + i * down, down, along, b + j, b_width, depth)
                 : tile<4, 1>(c + i * width + j, width, a + i * down, down, along, b + j, b_width, depth);
        for (; i < rows; i++)
            both ? tile<1, 2>(c + i * width + j, width, a + i * down, down, along, b + j, b_width, depth)
                 : tile<1, 1>(c + i * width + j, width, a + i * down, down, along, b + j, b_width, depth);
    }
}

template <class T> static void load(float* to, i64 width, const T* from, i64 stride, i64 rows, i64 dim) {
    for (i64 i = 0; i < rows; i++) {
#pragma omp simd
        for (i64 j = 0; j < dim; j++) to[i * width + j] = get(from[i * stride + j]);
        for (i64 j = dim; j < width; j++) to[i * width + j] = 0;
    }
}
template <class T> static void store(T* to, i64 stride, const float* from, i64 width, i64 rows, i64 dim) {
    for (i64 i = 0; i < rows; i++) {
#pragma omp simd
        for (i64 j = 0; j < dim; j++) put(to + i * stride + j, from[i * width + j]);
    }
}
static void transpose(float* to, i64 width, const float* from, i64 from_width, i64 rows, i64 dim) {
    for (i64 j = 0; j < dim; j++) {
        for (i64 i = 0; i < rows; i++) to[j * width + i] = from[i * from_width + j];
        for (i64 i = rows; i < width; i++) to[j * width + i] = 0;
    }
}

static i64 lanes(i64 n) { return (n + LANE - 1) / LANE * LANE; }

// scores (rows, width), of which `rows` columns count, become shares.
static void softmax(float* scores, i64 width, i64 rows, float scale) {
    for (i64 i = 0; i < rows; i++) {
        float *x = scores + i * width, highest = -INFINITY, sum = 0;
#pragma omp simd reduction(max : highest)
        for (i64 j = 0; j < rows; j++) highest = x[j] > highest ? x[j] : highest;
#pragma omp simd reduction(+ : sum)
        for (i64 j = 0; j < rows; j++) {
            x[j] = fast_exp((x[j] - highest) * scale);
            sum += x[j];
        }
        float share = highest == highest ? 1.0f / sum : NAN;
#pragma omp simd
        for (i64 j = 0; j < rows; j++) x[j] *= share;
    }
}

// The mask of head h of row r, (length, length).
static void draw_square(float* keep, i64 r, i64 heads, i64 h, i64 length, i64 seed, float p) {
    draw(keep, length * length, uint64_t(r * heads + h) << 32, seed, p);
}

template <class T>
static void attend_short(const void* q_, i64 q_stride, const void* k_, i64 k_stride, const void* v_, i64 v_stride,
                         const i64* offsets, void* out_, i64 rows, i64 heads, i64 dim, float scale, i64 seed, float p,
                         int threads) {
    const T *q = (const T*)q_, *k = (const T*)k_, *v = (const T*)v_;
    T* out = (T*)out_;
    i64 wide = lanes(dim);
#pragma omp parallel for collapse(2) num_threads(threads) schedule(dynamic, 4)
    for (i64 r = 0; r < rows; r++) {
        for (i64 h = 0; h < heads; h++) {
            i64 first = offsets[r], n = offsets[r + 1] - first, width = lanes(n);
            float* asked = scratch(3 * n * wide + (wide + n) * width + n * n + 8);
            float *keys = asked + n * wide, *values = keys + n * wide, *turned = values + n * wide;
            float *shares = turned + wide * width, *keep = shares + n * width;
            load(asked, wide, q + first * q_stride + h * dim, q_stride, n, dim);
            load(keys, wide, k + first * k_stride + h * dim, k_stride, n, dim);
            load(values, wide, v + first * v_stride + h * dim, v_stride, n, dim);
            transpose(turned, width, keys, wide, n, dim);
            product(shares, width, asked, wide, 1, turned, width, n, width, dim);
            softmax(shares, width, n, scale);
            if (p > 0) {
                draw_square(keep, r, heads, h, n, seed, p);
                for (i64 i = 0; i < n; i++)
                    for (i64 j = 0; j < n; j++) shares[i * width + j] *= keep[i * n + j];
            }
            product(asked, wide, shares, width, 1, values, wide, n, wide, n);
            store(out + first * heads * dim + h * dim, heads * dim, asked, wide, n, dim);
        }
    }
}
BOTH(attend_short,
     (const void* q, i64 q_stride, const void* k, i64 k_stride, const void* v, i64 v_stride, const i64* offsets, void* out,
      i64 rows, i64 heads, i64 dim, float scale, i64 seed, float p, int threads),
     (q, q_stride, k, k_stride, v, v_stride, offsets, out, rows, heads, dim, scale, seed, p, threads))

// Gradients of q, k, v; shares are computed again. dy, dq, dk, dv: tokens side by side.
template <class T>
static void attend_short_backward(const void* q_, i64 q_stride, const void* k_, i64 k_stride, const void* v_, i64 v_stride,
                                  const i64* offsets, const void* dy_, void* dq_, void* dk_, void* dv_, i64 rows,
                                  i64 heads, i64 dim, float scale, i64 seed, float p, int threads) {
    const T *q = (const T*)q_, *k = (const T*)k_, *v = (const T*)v_, *dy = (const T*)dy_;
    T *dq = (T*)dq_, *dk = (T*)dk_, *dv = (T*)dv_;
    i64 wide = lanes(dim);
#pragma omp parallel for collapse(2) num_threads(threads) schedule(dynamic, 4)
    for (i64 r = 0; r < rows; r++) {
        for (i64 h = 0; h < heads; h++) {
            i64 first = offsets[r], n = offsets[r + 1] - first, width = lanes(n), at = first * heads * dim + h * dim;
            float* asked = scratch(4 * n * wide + (wide + 2 * n) * width + n * n + 8);
            float *keys = asked + n * wide, *of_out = keys + n * wide, *made = of_out + n * wide;
            float *turned = made + n * wide, *shares = turned + wide * width, *grads = shares + n * width;
            float* keep = grads + n * width;
            load(asked, wide, q + first * q_stride + h * dim, q_stride, n, dim);
            load(keys, wide, k + first * k_stride + h * dim, k_stride, n, dim);
            load(of_out, wide, dy + at, heads * dim, n, dim);
            transpose(turned, width, keys, wide, n, dim);
            product(shares, width, asked, wide, 1, turned, width, n, width, dim);
            softmax(shares, width, n, scale);
            load(made, wide, v + first * v_stride + h * dim, v_stride, n, dim);
            transpose(turned, width, made, wide, n, dim);
            product(grads, width, of_out, wide, 1, turned, width, n, width, dim);
            for (i64 i = 0; i < n * n; i++) keep[i] = 1;
            if (p > 0) draw_square(keep, r, heads, h, n, seed, p);
            for (i64 i = 0; i < n; i++) {  // grads become those of the scores, shares what the values were read with
                float *s = shares + i * width, *g = grads + i * width, *m = keep + i * n, dot = 0;
#pragma omp simd reduction(+ : dot)
                for (i64 j = 0; j < n; j++) dot += s[j] * g[j] * m[j];
#pragma omp simd
                for (i64 j = 0; j < n; j++) {
                    g[j] = s[j] * (g[j] * m[j] - dot) * scale;
                    s[j] *= m[j];
                }
            }
            product(made, wide, shares, 1, width, of_out, wide, n, wide, n);
            store(dv + at, heads * dim, made, wide, n, dim);
            product(made, wide, grads, width, 1, keys, wide, n, wide, n);
            store(dq + at, heads * dim, made, wide, n, dim);
            product(made, wide, grads, 1, width, asked, wide, n, wide, n);
            store(dk + at, heads * dim, made, wide, n, dim);
        }
    }
}
BOTH(attend_short_backward,
     (const void* q, i64 q_stride, const void* k, i64 k_stride, const void* v, i64 v_stride, const i64* offsets,
      const void* dy, void* dq, void* dk, void* dv, i64 rows, i64 heads, i64 dim, float scale, i64 seed, float p,
      int threads),
     (q, q_stride, k, k_stride, v, v_stride, offsets, dy, dq, dk, dv, rows, heads, dim, scale, seed, p, threads))
