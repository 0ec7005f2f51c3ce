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

#ifdef HAS_VECTORS
// 1 / (1 + e^-x), 2e-7 relative: an estimate of the inverse and one step of Newton's.
static inline __m512 sigmoid_of(__m512 x) {
    __m512 power = _mm512_min_ps(_mm512_set1_ps(126), _mm512_mul_ps(x, _mm512_set1_ps(-LOG2E)));
    __m512 below = _mm512_add_ps(_mm512_set1_ps(1), exp2_of(power)), r = _mm512_rcp14_ps(below);
    return _mm512_mul_ps(r, _mm512_fnmadd_ps(below, r, _mm512_set1_ps(2)));
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
#endif
