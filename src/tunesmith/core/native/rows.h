// What is done to one row, or to elements one by one: called over all rows (kernels.cpp) and block by block (chain.cpp).
#pragma once
#include "vectors.h"

// y = w * (x / sqrt(mean(x^2) + eps)), arXiv:1910.07467; returns what x is multiplied by.
template <class T> static inline float norm_row(const T* x, const T* w, T* y, i64 width, float eps) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (i64 j = 0; j < width; j++) sum += get(x[j]) * get(x[j]);
    float r = 1.0f / std::sqrt(sum / width + eps);
#pragma omp simd
    for (i64 j = 0; j < width; j++) put(y + j, get(w[j]) * rounded<T>(get(x[j]) * r));
    return r;
}

// y = silu(g) * u, arXiv:2002.05202
template <class T> static inline void gate(const T* g, const T* u, T* y, i64 n) {
#pragma omp simd
    for (i64 i = 0; i < n; i++) {
        float x = get(g[i]);
        put(y + i, rounded<T>(x * sigmoid(x)) * get(u[i]));
    }
}

// dx = r * (g - xhat * mean(g * xhat)) + passed (or null), with g = dy * w and xhat = x * r; y itself takes dy's place.
// sums (or null) += dy * xhat.
template <class T>
static inline void norm_row_back(const T* x, const T* w, float r, T* dy, const T* passed, T* dx, float* sums, i64 width) {
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (i64 j = 0; j < width; j++) dot += get(dy[j]) * get(w[j]) * get(x[j]);
    float c = dot * r * r / width;
    if (passed) {
#pragma omp simd
        for (i64 j = 0; j < width; j++) put(dx + j, r * (get(dy[j]) * get(w[j]) - get(x[j]) * c) + get(passed[j]));
    } else {
#pragma omp simd
        for (i64 j = 0; j < width; j++) put(dx + j, r * (get(dy[j]) * get(w[j]) - get(x[j]) * c));
    }
    if (sums) {
#pragma omp simd
        for (i64 j = 0; j < width; j++) sums[j] += get(dy[j]) * get(x[j]) * r;
    }
#pragma omp simd
    for (i64 j = 0; j < width; j++) put(dy + j, get(w[j]) * rounded<T>(get(x[j]) * r));
}

// Of both; y itself takes dy's place.
template <class T> static inline void gate_back(const T* g, const T* u, T* dy, T* dg, T* du, i64 n) {
#pragma omp simd
    for (i64 i = 0; i < n; i++) {
        float x = get(g[i]), s = sigmoid(x), d = get(dy[i]), up = get(u[i]);
        put(dg + i, d * up * s * (1.0f + x * (1.0f - s)));
        put(du + i, d * x * s);
        put(dy + i, rounded<T>(x * s) * up);
    }
}

// 1 - Phi(|x|) of the normal distribution is e^(-x^2 / 2) times a polynomial of 1 / (1 + 0.3 |x|), fitted to 1.3e-7
// relative; this is that polynomial, highest power first, which has no constant.
const float TAIL[8] = {3.59331276e-2f, -1.58281979e-1f, 2.08217202e-1f, -5.54038613e-2f,
                       1.29474633e-1f, 9.96358070e-2f,  1.20798635e-1f, 1.19626371e-1f};
const float DENSITY = 0.398942280401432678f;  // of the normal distribution at 0

// Phi(x), and e^(-x^2 / 2).
static inline float normal(float x, float* power) {
    float from = x < 0 ? -x : x, t = 1.0f / (1.0f + 0.3f * from), tail = 0;
    *power = fast_exp(-0.5f * x * x);
    for (float c : TAIL) tail = tail * t + c;
    tail *= t * *power;
    return x < 0 ? tail : 1.0f - tail;
}

// y = x * Phi(x), arXiv:1606.08415
template <class T> static inline void gelu_row(const T* x, T* y, i64 n) {
#pragma omp simd
    for (i64 i = 0; i < n; i++) {
        float power, a = get(x[i]);
        put(y + i, a * normal(a, &power));
    }
}
template <class T> static inline void gelu_row_back(const T* x, const T* dy, T* dx, i64 n) {
#pragma omp simd
    for (i64 i = 0; i < n; i++) {
        float power, a = get(x[i]), under = normal(a, &power);
        put(dx + i, get(dy[i]) * (under + a * power * DENSITY));
    }
}

// s = r + keep * x (keep null: 1)
template <class T> static inline void add_row(const T* x, const T* r, const float* keep, T* s, i64 width) {
    if (keep) {
#pragma omp simd
        for (i64 j = 0; j < width; j++) put(s + j, get(r[j]) + get(x[j]) * keep[j]);
    } else {
#pragma omp simd
        for (i64 j = 0; j < width; j++) put(s + j, get(r[j]) + get(x[j]));
    }
}

// y = w * (s - mean(s)) * rstd + b, rstd = 1 / sqrt(var(s) + eps), arXiv:1607.06450
template <class T>
static inline void layer_norm_row(const T* s, const T* w, const T* b, T* y, i64 width, float eps, float* mean, float* rstd) {
    float total = 0, squares = 0;
#pragma omp simd reduction(+ : total)
    for (i64 j = 0; j < width; j++) total += get(s[j]);
    float m = total / width;
#pragma omp simd reduction(+ : squares)
    for (i64 j = 0; j < width; j++) squares += (get(s[j]) - m) * (get(s[j]) - m);
    float q = 1.0f / std::sqrt(squares / width + eps);
#pragma omp simd
    for (i64 j = 0; j < width; j++) put(y + j, (get(s[j]) - m) * q * get(w[j]) + get(b[j]));
    *mean = m;
    *rstd = q;
}

// ds = rstd * (g - mean(g) - shat * mean(g * shat)), g = dy * w, shat = (s - mean) * rstd; dx = keep * ds, or null.
// of_w, of_b, or null: += their gradients.
template <class T>
static inline void layer_norm_row_back(const T* s, const T* w, float mean, float rstd, const T* dy, const float* keep,
                                       T* ds, T* dx, float* of_w, float* of_b, i64 width) {
    float total = 0, dot = 0;
#pragma omp simd reduction(+ : total, dot)
    for (i64 j = 0; j < width; j++) {
        float g = get(dy[j]) * get(w[j]);
        total += g;
        dot += g * (get(s[j]) - mean);
    }
    float shift = total / width, c = dot * rstd * rstd / width;
#pragma omp simd
    for (i64 j = 0; j < width; j++)
        put(ds + j, rstd * (get(dy[j]) * get(w[j]) - shift - (get(s[j]) - mean) * c));
    if (dx) {
#pragma omp simd
        for (i64 j = 0; j < width; j++) put(dx + j, get(ds[j]) * keep[j]);
    }
    if (of_w) {
#pragma omp simd
        for (i64 j = 0; j < width; j++) {
            of_w[j] += get(dy[j]) * (get(s[j]) - mean) * rstd;
            of_b[j] += get(dy[j]);
        }
    }
}

#ifdef HAS_VECTORS
// 1 / (1 + e^-x), 6e-5 relative: the inverse is the processor's estimate, a tenth of what rounding to bfloat16 takes.
static inline __m512 sigmoid_of(__m512 x) {
    __m512 power = _mm512_mul_ps(x, _mm512_set1_ps(-LOG2E));
    return _mm512_rcp14_ps(_mm512_add_ps(_mm512_set1_ps(1), exp2_of(power)));
}

template <> inline float norm_row(const bf16* x, const bf16* w, bf16* y, i64 width, float eps) {
    __m512 sum = _mm512_setzero_ps();
    for (i64 i = 0; i < width; i += 16) {
        __m512 a = wide(x + i, some(width - i));
        sum = _mm512_fmadd_ps(a, a, sum);
    }
    float r = 1.0f / std::sqrt(_mm512_reduce_add_ps(sum) / width + eps);
    for (i64 i = 0; i < width; i += 16) {
        __mmask16 of = some(width - i);
        put(y + i, of, _mm512_mul_ps(wide(w + i, of), rounded_of(_mm512_mul_ps(wide(x + i, of), _mm512_set1_ps(r)))));
    }
    return r;
}

template <>
inline void norm_row_back(const bf16* x, const bf16* w, float r_, bf16* dy, const bf16* passed, bf16* dx, float* sums, i64 width) {
    __m512 dot = _mm512_setzero_ps(), r = _mm512_set1_ps(r_);
    for (i64 i = 0; i < width; i += 16) {
        __mmask16 of = some(width - i);
        dot = _mm512_fmadd_ps(_mm512_mul_ps(wide(dy + i, of), wide(w + i, of)), wide(x + i, of), dot);
    }
    __m512 c = _mm512_set1_ps(_mm512_reduce_add_ps(dot) * r_ * r_ / width);
    for (i64 i = 0; i < width; i += 16) {
        __mmask16 of = some(width - i);
        __m512 a = wide(x + i, of), d = wide(dy + i, of), v = wide(w + i, of), unit = _mm512_mul_ps(a, r);
        __m512 found = _mm512_mul_ps(r, _mm512_fnmadd_ps(a, c, _mm512_mul_ps(d, v)));
        if (passed) found = _mm512_add_ps(found, wide(passed + i, of));
        if (sums) _mm512_mask_storeu_ps(sums + i, of, _mm512_fmadd_ps(d, unit, _mm512_maskz_loadu_ps(of, sums + i)));
        put(dx + i, of, found);
        put(dy + i, of, _mm512_mul_ps(v, rounded_of(unit)));
    }
}

template <> inline void gate(const bf16* g, const bf16* u, bf16* y, i64 n) {
    for (i64 i = 0; i < n; i += 16) {
        __mmask16 of = some(n - i);
        __m512 x = wide(g + i, of);
        put(y + i, of, _mm512_mul_ps(rounded_of(_mm512_mul_ps(x, sigmoid_of(x))), wide(u + i, of)));
    }
}

template <> inline void gate_back(const bf16* g, const bf16* u, bf16* dy, bf16* dg, bf16* du, i64 n) {
    const __m512 one = _mm512_set1_ps(1);
    for (i64 i = 0; i < n; i += 16) {
        __mmask16 of = some(n - i);
        __m512 x = wide(g + i, of), up = wide(u + i, of), d = wide(dy + i, of), s = sigmoid_of(x), silu = _mm512_mul_ps(x, s);
        __m512 slope = _mm512_mul_ps(s, _mm512_fmadd_ps(x, _mm512_sub_ps(one, s), one));
        put(dg + i, of, _mm512_mul_ps(_mm512_mul_ps(d, up), slope));
        put(du + i, of, _mm512_mul_ps(d, silu));
        put(dy + i, of, _mm512_mul_ps(rounded_of(silu), up));
    }
}

// TAIL of 1 / (1 + 0.37 |x|), fitted to 4e-5 relative, a fiftieth of what rounding to bfloat16 takes.
const float SHORT_TAIL[5] = {-9.03605319e-2f, 2.09952734e-1f, 7.61224232e-2f, 1.57381854e-1f, 1.46919058e-1f};

static inline __m512 normal(__m512 x, __m512* power) {
    const __m512 one = _mm512_set1_ps(1);
    __m512 t = _mm512_rcp14_ps(_mm512_fmadd_ps(_mm512_abs_ps(x), _mm512_set1_ps(0.37f), one));
    *power = exp2_of(_mm512_mul_ps(_mm512_mul_ps(x, x), _mm512_set1_ps(-0.5f * LOG2E)));
    __m512 tail = _mm512_set1_ps(SHORT_TAIL[0]);
    for (int i = 1; i < 5; i++) tail = _mm512_fmadd_ps(tail, t, _mm512_set1_ps(SHORT_TAIL[i]));
    tail = _mm512_mul_ps(tail, _mm512_mul_ps(t, *power));
    __mmask16 below = _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ);
    return _mm512_mask_mov_ps(_mm512_sub_ps(one, tail), below, tail);
}

template <> inline void gelu_row(const bf16* x, bf16* y, i64 n) {
    for (i64 i = 0; i < n; i += 16) {
        __mmask16 of = some(n - i);
        __m512 power, a = wide(x + i, of);
        put(y + i, of, _mm512_mul_ps(a, normal(a, &power)));
    }
}

template <> inline void gelu_row_back(const bf16* x, const bf16* dy, bf16* dx, i64 n) {
    for (i64 i = 0; i < n; i += 16) {
        __mmask16 of = some(n - i);
        __m512 power, a = wide(x + i, of), under = normal(a, &power);
        __m512 slope = _mm512_fmadd_ps(_mm512_mul_ps(a, _mm512_set1_ps(DENSITY)), power, under);
        put(dx + i, of, _mm512_mul_ps(wide(dy + i, of), slope));
    }
}

template <> inline void add_row(const bf16* x, const bf16* r, const float* keep, bf16* s, i64 width) {
    __m512 by = _mm512_set1_ps(1);
    for (i64 i = 0; i < width; i += 16) {
        __mmask16 of = some(width - i);
        if (keep) by = _mm512_maskz_loadu_ps(of, keep + i);
        put(s + i, of, _mm512_fmadd_ps(wide(x + i, of), by, wide(r + i, of)));
    }
}

template <>
inline void layer_norm_row(const bf16* s, const bf16* w, const bf16* b, bf16* y, i64 width, float eps, float* mean, float* rstd) {
    __m512 total = _mm512_setzero_ps(), squares = total;
    for (i64 i = 0; i < width; i += 16) total = _mm512_add_ps(total, wide(s + i, some(width - i)));
    *mean = _mm512_reduce_add_ps(total) / width;
    __m512 m = _mm512_set1_ps(*mean);
    for (i64 i = 0; i < width; i += 16) {
        __mmask16 of = some(width - i);
        __m512 a = _mm512_maskz_sub_ps(of, wide(s + i, of), m);
        squares = _mm512_fmadd_ps(a, a, squares);
    }
    *rstd = 1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / width + eps);
    __m512 q = _mm512_set1_ps(*rstd);
    for (i64 i = 0; i < width; i += 16) {
        __mmask16 of = some(width - i);
        __m512 unit = _mm512_mul_ps(_mm512_sub_ps(wide(s + i, of), m), q);
        put(y + i, of, _mm512_fmadd_ps(unit, wide(w + i, of), wide(b + i, of)));
    }
}

template <>
inline void layer_norm_row_back(const bf16* s, const bf16* w, float mean, float rstd, const bf16* dy, const float* keep,
                                bf16* ds, bf16* dx, float* of_w, float* of_b, i64 width) {
    __m512 total = _mm512_setzero_ps(), dot = total, m = _mm512_set1_ps(mean), q = _mm512_set1_ps(rstd);
    for (i64 i = 0; i < width; i += 16) {
        __mmask16 of = some(width - i);
        __m512 g = _mm512_mul_ps(wide(dy + i, of), wide(w + i, of));
        total = _mm512_add_ps(total, g);
        dot = _mm512_fmadd_ps(g, _mm512_sub_ps(wide(s + i, of), m), dot);
    }
    __m512 shift = _mm512_set1_ps(_mm512_reduce_add_ps(total) / width);
    __m512 c = _mm512_set1_ps(_mm512_reduce_add_ps(dot) * rstd * rstd / width);
    for (i64 i = 0; i < width; i += 16) {
        __mmask16 of = some(width - i);
        __m512 d = wide(dy + i, of), a = _mm512_sub_ps(wide(s + i, of), m);
        __m512 found = _mm512_fnmadd_ps(a, c, _mm512_fmsub_ps(d, wide(w + i, of), shift));
        found = rounded_of(_mm512_mul_ps(found, q));
        put(ds + i, of, found);
        if (dx) put(dx + i, of, _mm512_mul_ps(found, _mm512_maskz_loadu_ps(of, keep + i)));
        if (!of_w) continue;
        _mm512_mask_storeu_ps(of_w + i, of, _mm512_fmadd_ps(d, _mm512_mul_ps(a, q), _mm512_maskz_loadu_ps(of, of_w + i)));
        _mm512_mask_storeu_ps(of_b + i, of, _mm512_add_ps(d, _mm512_maskz_loadu_ps(of, of_b + i)));
    }
}
#endif
