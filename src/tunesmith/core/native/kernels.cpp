// One pass over memory for what eager PyTorch does in many: norms, gated units, softmax over key ranges, gathers with
// rotary positions, cross-entropy. Rows are float or bfloat16, sums are float; each function is checked against
// a plain formula in the tests. Plain C interface: no header of PyTorch, nothing to rebuild when its version changes.
#include "rows.h"

// ---- root mean square norm (rows.h) -----------------------------------------------------------------------------------

template <class T>
static void rms_norm(const void* x_, const void* w_, void* y_, float* rstd, i64 rows, i64 width, float eps, int threads) {
    const T *x = (const T*)x_, *w = (const T*)w_;
    T* y = (T*)y_;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 i = 0; i < rows; i++) rstd[i] = norm_row(x + i * width, w, y + i * width, width, eps);
}
BOTH(rms_norm, (const void* x, const void* w, void* y, float* rstd, i64 rows, i64 width, float eps, int threads),
     (x, w, y, rstd, rows, width, eps, threads))

// dw (threads, width), or null, gets a sum for each thread.
template <class T>
static void rms_norm_backward(const void* x_, const void* w_, const float* rstd, void* dy_, const void* passed_,
                              void* dx_, float* dw, i64 rows, i64 width, int threads) {
    const T *x = (const T*)x_, *w = (const T*)w_, *passed = (const T*)passed_;
    T* dy = (T*)dy_;
    T* dx = (T*)dx_;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int t = 0; t < threads; t++) {
        float* sums = dw ? dw + t * width : nullptr;
        for (i64 i = rows * t / threads; i < rows * (t + 1) / threads; i++) {
            const T* past = passed ? passed + i * width : nullptr;
            norm_row_back(x + i * width, w, rstd[i], dy + i * width, past, dx + i * width, sums, width);
        }
    }
}
BOTH(rms_norm_backward,
     (const void* x, const void* w, const float* rstd, void* dy, const void* passed, void* dx, float* dw, i64 rows,
      i64 width, int threads),
     (x, w, rstd, dy, passed, dx, dw, rows, width, threads))

// ---- gated unit (rows.h) ----------------------------------------------------------------------------------------------

template <class T> static void swiglu(const void* g, const void* u, void* y, i64 n, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 i = 0; i < n; i += CHUNK) gate((const T*)g + i, (const T*)u + i, (T*)y + i, CHUNK < n - i ? CHUNK : n - i);
}
BOTH(swiglu, (const void* g, const void* u, void* y, i64 n, int threads), (g, u, y, n, threads))

template <class T>
static void swiglu_backward(const void* g, const void* u, void* dy, void* dg, void* du, i64 n, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 i = 0; i < n; i += CHUNK)
        gate_back((const T*)g + i, (const T*)u + i, (T*)dy + i, (T*)dg + i, (T*)du + i, CHUNK < n - i ? CHUNK : n - i);
}
BOTH(swiglu_backward,
     (const void* g, const void* u, void* dy, void* dg, void* du, i64 n, int threads),
     (g, u, dy, dg, du, n, threads))

// ---- heads of flat tokens, to and from rows of attention -------------------------------------------------------------
// x: flat tokens, `stride` elements a token, heads side by side; rows: (groups, heads, length, dim). index (groups,
// length): the token of each place; real (groups): how many places are real, the others are zero. cos, sin: (tokens,
// dim) float, or null: rotary positions (arXiv:2104.09864), the halves of a head paired as transformers does.

template <class T>
static void gather_heads(const void* x_, i64 stride, const i64* index, const i64* real, const float* cos,
                         const float* sin, void* rows_, i64 groups, i64 heads, i64 length, i64 dim, int threads) {
    const T* x = (const T*)x_;
    T* rows = (T*)rows_;
    i64 half = dim / 2;
#pragma omp parallel for collapse(2) num_threads(threads) schedule(static)
    for (i64 g = 0; g < groups; g++) {
        for (i64 h = 0; h < heads; h++) {
            T* to = rows + (g * heads + h) * length * dim;
            for (i64 l = 0; l < length; l++, to += dim) {
                if (l >= real[g]) {
                    memset((void*)to, 0, dim * sizeof(T));
                    continue;
                }
                i64 token = index[g * length + l];
                const T* from = x + token * stride + h * dim;
                if (!cos) {
                    memcpy((void*)to, (const void*)from, dim * sizeof(T));
                    continue;
                }
                turn(from, cos + token * dim, sin + token * dim, to, half);
            }
        }
    }
}
BOTH(gather_heads,
     (const void* x, i64 stride, const i64* index, const i64* real, const float* cos, const float* sin, void* rows,
      i64 groups, i64 heads, i64 length, i64 dim, int threads),
     (x, stride, index, real, cos, sin, rows, groups, heads, length, dim, threads))

// The way back for places of which each token has one; with cos and sin through the transposed rotation.
template <class T>
static void scatter_heads(const void* rows_, const i64* index, const i64* real, const float* cos, const float* sin,
                          void* x_, i64 stride, i64 groups, i64 heads, i64 length, i64 dim, int threads) {
    const T* rows = (const T*)rows_;
    T* x = (T*)x_;
    i64 half = dim / 2;
#pragma omp parallel for collapse(2) num_threads(threads) schedule(static)
    for (i64 g = 0; g < groups; g++) {
        for (i64 h = 0; h < heads; h++) {
            const T* from = rows + (g * heads + h) * length * dim;
            for (i64 l = 0; l < real[g]; l++, from += dim) {
                i64 token = index[g * length + l];
                T* to = x + token * stride + h * dim;
                if (!cos) {
                    memcpy((void*)to, (const void*)from, dim * sizeof(T));
                    continue;
                }
                turn_back(from, cos + token * dim, sin + token * dim, to, half);
            }
        }
    }
}
BOTH(scatter_heads,
     (const void* rows, const i64* index, const i64* real, const float* cos, const float* sin, void* x, i64 stride,
      i64 groups, i64 heads, i64 length, i64 dim, int threads),
     (rows, index, real, cos, sin, x, stride, groups, heads, length, dim, threads))

// Sums into float, for places that share tokens: each thread has dimensions of its own, so the order is always the same.
const i64 SLICE = 16;

template <class T>
static void scatter_add_heads(const void* rows_, const i64* index, const i64* real, float* sums, i64 groups, i64 heads,
                              i64 length, i64 dim, int threads) {
    const T* rows = (const T*)rows_;
    i64 slices = (dim + SLICE - 1) / SLICE;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 part = 0; part < heads * slices; part++) {
        i64 h = part / slices, first = part % slices * SLICE;
        i64 count = first + SLICE < dim ? SLICE : dim - first;
        for (i64 g = 0; g < groups; g++) {
            const T* from = rows + (g * heads + h) * length * dim + first;
            for (i64 l = 0; l < real[g]; l++, from += dim) {
                float* to = sums + (index[g * length + l] * heads + h) * dim + first;
#pragma omp simd
                for (i64 j = 0; j < count; j++) to[j] += get(from[j]);
            }
        }
    }
}
BOTH(scatter_add_heads,
     (const void* rows, const i64* index, const i64* real, float* sums, i64 groups, i64 heads, i64 length, i64 dim,
      int threads),
     (rows, index, real, sums, groups, heads, length, dim, threads))

// The sums (tokens, heads, dim) through the transposed rotation (or as they are), rounded, into x.
template <class T>
static void write_heads(const float* sums, const float* cos, const float* sin, void* x_, i64 stride, i64 tokens,
                        i64 heads, i64 dim, int threads) {
    T* x = (T*)x_;
    i64 half = dim / 2;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 t = 0; t < tokens; t++) {
        for (i64 h = 0; h < heads; h++) {
            const float* from = sums + (t * heads + h) * dim;
            T* to = x + t * stride + h * dim;
            if (cos) {
                turn_back(from, cos + t * dim, sin + t * dim, to, half);
            } else {
#pragma omp simd
                for (i64 j = 0; j < dim; j++) put(to + j, from[j]);
            }
        }
    }
}
BOTH(write_heads,
     (const float* sums, const float* cos, const float* sin, void* x, i64 stride, i64 tokens, i64 heads, i64 dim,
      int threads),
     (sums, cos, sin, x, stride, tokens, heads, dim, threads))

// ---- softmax over the keys that a query sees, in place ---------------------------------------------------------------
// scores (groups, heads, queries, keys). Query l of group g stands at place before[g] + l of its row and sees the keys
// [first, last): up to itself (causal), or up to real_keys[g]; at most `window` places away (0: any). Queries from
// real[g] on see nothing: their shares are zero.

template <class T>
static void softmax_seen(void* scores_, const i64* before, const i64* real, const i64* real_keys, i64 groups, i64 heads,
                         i64 queries, i64 keys, i64 causal, i64 window, float scale, int threads) {
    T* scores = (T*)scores_;
    i64 total = groups * heads * queries;
#pragma omp parallel for num_threads(threads) schedule(static, 64)
    for (i64 row = 0; row < total; row++) {
        i64 l = row % queries, g = row / (heads * queries);
        T* x = scores + row * keys;
        i64 first = 0, last = 0;
        if (l < real[g]) seen(before[g] + l, real_keys[g], keys, causal, window, &first, &last);
        softmax_row(x, keys, first, last, scale, x);
    }
}
BOTH(softmax_seen,
     (void* scores, const i64* before, const i64* real, const i64* real_keys, i64 groups, i64 heads, i64 queries, i64 keys,
      i64 causal, i64 window, float scale, int threads),
     (scores, before, real, real_keys, groups, heads, queries, keys, causal, window, scale, threads))

// grad: of the shares, in place that of the scores: shares * (grad - sum(grad * shares)) * scale.
template <class T> static void softmax_backward(const void* shares_, void* grad_, i64 rows, i64 keys, float scale, int threads) {
    const T* shares = (const T*)shares_;
    T* grad = (T*)grad_;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 row = 0; row < rows; row++) {
        const T* p = shares + row * keys;
        T* g = grad + row * keys;
        float dot = 0;
#pragma omp simd reduction(+ : dot)
        for (i64 j = 0; j < keys; j++) dot += get(p[j]) * get(g[j]);
#pragma omp simd
        for (i64 j = 0; j < keys; j++) put(g + j, get(p[j]) * (get(g[j]) - dot) * scale);
    }
}
BOTH(softmax_backward, (const void* shares, void* grad, i64 rows, i64 keys, float scale, int threads),
     (shares, grad, rows, keys, scale, threads))

// ---- cross-entropy ---------------------------------------------------------------------------------------------------
// losses[m] = logsumexp - (1 - smoothing) * logit of the target - smoothing * mean logit; best[m]: the likeliest. With
// `replace` the logits become the loss' gradient, softmax - (1 - smoothing) * onehot - smoothing / width.

template <class T>
static void cross_entropy(void* logits_, const i64* targets, float* losses, i64* best, i64 rows, i64 width,
                          float smoothing, i64 replace, int threads) {
    T* logits = (T*)logits_;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 m = 0; m < rows; m++) {
        T* x = logits + m * width;
        float highest = -INFINITY, total = 0, sum = 0;
        i64 at = 0;
        for (i64 first = 0; first < width; first += CHUNK) {
            i64 end = first + CHUNK < width ? first + CHUNK : width;
            float most = -INFINITY;
#pragma omp simd reduction(max : most) reduction(+ : total)
            for (i64 j = first; j < end; j++) {
                float v = get(x[j]);
                most = v > most ? v : most;
                total += v;
            }
            if (most > highest) highest = most, at = first;
        }
        while (at < width - 1 && get(x[at]) != highest) at++;
        best[m] = at;
        float* e = scratch(width);
#pragma omp simd reduction(+ : sum)
        for (i64 j = 0; j < width; j++) {
            e[j] = fast_exp(get(x[j]) - highest);
            sum += e[j];
        }
        float target = get(x[targets[m]]);
        losses[m] = std::log(sum) + highest - (1 - smoothing) * target - smoothing * total / width;
        if (!replace) continue;
        float share = 1.0f / sum, rest = smoothing / width;
        float of_target = e[targets[m]] * share - rest - (1 - smoothing);
#pragma omp simd
        for (i64 j = 0; j < width; j++) put(x + j, e[j] * share - rest);
        put(x + targets[m], of_target);
    }
}
BOTH(cross_entropy,
     (void* logits, const i64* targets, float* losses, i64* best, i64 rows, i64 width, float smoothing, i64 replace,
      int threads),
     (logits, targets, losses, best, rows, width, smoothing, replace, threads))

// out (columns) = the sum of x's rows, `stride` elements apart. wide: out is float, else bfloat16.
template <class T>
static void column_sums(const void* x_, i64 stride, i64 rows, i64 columns, void* out, i64 wide, int threads) {
    const i64 WIDE = 64;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 first = 0; first < columns; first += WIDE) {
        const T* x = (const T*)x_ + first;
        i64 n = columns - first < WIDE ? columns - first : WIDE;
        float sums[WIDE] = {};
        for (i64 i = 0; i < rows; i++, x += stride)
#pragma omp simd
            for (i64 j = 0; j < n; j++) sums[j] += get(x[j]);
        for (i64 j = 0; j < n; j++) wide ? put((float*)out + first + j, sums[j]) : put((bf16*)out + first + j, sums[j]);
    }
}
BOTH(column_sums, (const void* x, i64 stride, i64 rows, i64 columns, void* out, i64 wide, int threads),
     (x, stride, rows, columns, out, wide, threads))
