// What the layers of encoders compute beside their products: dropout, dropout + residual + layer norm, GELU. Rows are
// float or bfloat16, sums are float. Masks of dropout are never stored: each pass draws them again from their seed.
#include "common.h"

// ---- dropout, arXiv:1207.0580 ----------------------------------------------------------------------------------------
// Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): four words for each counter and
// key, so what is drawn for an element depends on the seed and on its place alone, not on the threads.

// keep[i], i < n: 0 with probability p, else 1 / (1 - p). Words of the counters first, first + 1, ...: the first word of
// each, then the second of each, and so on. keep has room for n rounded up to fours.
static void draw(float* keep, i64 n, uint64_t first, uint64_t seed, float p) {
    i64 quarter = (n + 3) / 4;
    uint64_t limit = uint64_t(double(p) * 4294967296.0);
    float scale = p < 1 ? 1.0f / (1.0f - p) : 0.0f;
#pragma omp simd
    for (i64 i = 0; i < quarter; i++) {
        uint64_t counter = first + uint64_t(i);
        uint32_t a = uint32_t(counter), b = uint32_t(counter >> 32), c = 0, d = 0;
        uint32_t k = uint32_t(seed), l = uint32_t(seed >> 32);
        for (int round = 0; round < 10; round++) {
            uint64_t x = uint64_t(0xD2511F53u) * a, y = uint64_t(0xCD9E8D57u) * c;
            a = uint32_t(y >> 32) ^ b ^ k;
            c = uint32_t(x >> 32) ^ d ^ l;
            b = uint32_t(y);
            d = uint32_t(x);
            k += 0x9E3779B9u;
            l += 0xBB67AE85u;
        }
        keep[i] = a < limit ? 0.0f : scale;
        keep[i + quarter] = b < limit ? 0.0f : scale;
        keep[i + 2 * quarter] = c < limit ? 0.0f : scale;
        keep[i + 3 * quarter] = d < limit ? 0.0f : scale;
    }
}

// y = keep * x; the gradient goes the same way. x and y may be the same.
template <class T> static void dropout(const void* x_, void* y_, i64 n, i64 seed, float p, int threads) {
    const T* x = (const T*)x_;
    T* y = (T*)y_;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 start = 0; start < n; start += CHUNK) {
        i64 count = start + CHUNK < n ? CHUNK : n - start;
        float* keep = scratch(CHUNK);
        draw(keep, count, start / 4, seed, p);
#pragma omp simd
        for (i64 i = 0; i < count; i++) put(y + start + i, get(x[start + i]) * keep[i]);
    }
}
BOTH(dropout, (const void* x, void* y, i64 n, i64 seed, float p, int threads), (x, y, n, seed, p, threads))

// ---- residual + layer norm: s = r + keep * x, y = w * (s - mean(s)) / sqrt(var(s) + eps) + b, arXiv:1607.06450 --------

template <class T>
static void add_norm(const void* x_, const void* r_, const void* w_, const void* b_, void* s_, void* y_, float* mean,
                     float* rstd, i64 rows, i64 width, float eps, i64 seed, float p, int threads) {
    const T *x = (const T*)x_, *r = (const T*)r_, *w = (const T*)w_, *b = (const T*)b_;
    T *s = (T*)s_, *y = (T*)y_;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 i = 0; i < rows; i++) {
        const T *from = x + i * width, *past = r + i * width;
        T *sum = s + i * width, *out = y + i * width;
        float* keep = scratch(width + 4);
        if (p > 0) {
            draw(keep, width, i * ((width + 3) / 4), seed, p);
#pragma omp simd
            for (i64 j = 0; j < width; j++) put(sum + j, get(past[j]) + get(from[j]) * keep[j]);
        } else {
#pragma omp simd
            for (i64 j = 0; j < width; j++) put(sum + j, get(past[j]) + get(from[j]));
        }
        float total = 0, squares = 0;
#pragma omp simd reduction(+ : total)
        for (i64 j = 0; j < width; j++) total += get(sum[j]);
        float m = total / width;
#pragma omp simd reduction(+ : squares)
        for (i64 j = 0; j < width; j++) squares += (get(sum[j]) - m) * (get(sum[j]) - m);
        float q = 1.0f / std::sqrt(squares / width + eps);
        mean[i] = m;
        rstd[i] = q;
#pragma omp simd
        for (i64 j = 0; j < width; j++) put(out + j, (get(sum[j]) - m) * q * get(w[j]) + get(b[j]));
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
        float* keep = scratch(width + 4);
        for (i64 i = rows * t / threads; i < rows * (t + 1) / threads; i++) {
            const T *a = s + i * width, *g = dy + i * width;
            T* out = dr + i * width;
            float m = mean[i], q = rstd[i], total = 0, dot = 0;
#pragma omp simd reduction(+ : total, dot)
            for (i64 j = 0; j < width; j++) {
                float of = get(g[j]) * get(w[j]);
                total += of;
                dot += of * (get(a[j]) - m);
            }
            float shift = total / width, c = dot * q * q / width;
#pragma omp simd
            for (i64 j = 0; j < width; j++)
                put(out + j, q * (get(g[j]) * get(w[j]) - shift - (get(a[j]) - m) * c));
            if (dx) {
                draw(keep, width, i * ((width + 3) / 4), seed, p);
                T* dropped = dx + i * width;
#pragma omp simd
                for (i64 j = 0; j < width; j++) put(dropped + j, get(out[j]) * keep[j]);
            }
            if (sums) {
#pragma omp simd
                for (i64 j = 0; j < width; j++) {
                    of_w[j] += get(g[j]) * (get(a[j]) - m) * q;
                    of_b[j] += get(g[j]);
                }
            }
        }
    }
}
BOTH(add_norm_backward,
     (const void* s, const void* w, const float* mean, const float* rstd, const void* dy, void* dr, void* dx, float* sums,
      i64 rows, i64 width, i64 seed, float p, int threads),
     (s, w, mean, rstd, dy, dr, dx, sums, rows, width, seed, p, threads))

// ---- GELU: x * Phi(x), arXiv:1606.08415 ------------------------------------------------------------------------------

// Phi(x), with e = exp(-x^2 / 2): erfc by Abramowitz and Stegun 7.1.26, 1.5e-7 absolute.
static inline float normal(float x, float e) {
    float t = 1.0f / (1.0f + 0.3275911f * 0.70710678f * std::fabs(x));
    float tail = ((((1.061405429f * t - 1.453152027f) * t + 1.421413741f) * t - 0.284496736f) * t + 0.254829592f) * t * e;
    return x < 0 ? 0.5f * tail : 1.0f - 0.5f * tail;
}

template <class T> static void gelu(const void* x_, void* y_, i64 n, int threads) {
    const T* x = (const T*)x_;
    T* y = (T*)y_;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 start = 0; start < n; start += CHUNK) {
        i64 end = start + CHUNK < n ? start + CHUNK : n;
#pragma omp simd
        for (i64 i = start; i < end; i++) {
            float a = get(x[i]);
            put(y + i, a * normal(a, fast_exp(-0.5f * a * a)));
        }
    }
}
BOTH(gelu, (const void* x, void* y, i64 n, int threads), (x, y, n, threads))

template <class T> static void gelu_backward(const void* x_, const void* dy_, void* dx_, i64 n, int threads) {
    const T *x = (const T*)x_, *dy = (const T*)dy_;
    T* dx = (T*)dx_;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 start = 0; start < n; start += CHUNK) {
        i64 end = start + CHUNK < n ? start + CHUNK : n;
#pragma omp simd
        for (i64 i = start; i < end; i++) {
            float a = get(x[i]), e = fast_exp(-0.5f * a * a);
            put(dx + i, get(dy[i]) * (normal(a, e) + a * e * 0.39894228f));
        }
    }
}
BOTH(gelu_backward, (const void* x, const void* dy, void* dx, i64 n, int threads), (x, dy, dx, n, threads))
