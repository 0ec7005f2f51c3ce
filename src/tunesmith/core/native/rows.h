// What is done to one row, or to elements one by one: called over all rows (kernels.cpp) and block by block (chain.cpp).
#pragma once
#include "common.h"

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

#if defined(__AVX512BF16__) && defined(__AVX512BW__)
#include <immintrin.h>

static inline __m512 wide(__m256i x) { return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16); }
static inline __m512 wide(const bf16* x) { return wide(_mm256_loadu_si256((const __m256i*)x)); }

// 2^x, 2e-7 relative: a polynomial of what x is above a whole number, the power of which scalef multiplies by.
static inline __m512 exp2_of(__m512 x) {
    __m512 rest = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC), p = _mm512_set1_ps(1.8775767e-3f);
    for (float c : {8.9893401e-3f, 5.5826318e-2f, 2.4015362e-1f, 6.9315307e-1f, 9.9999993e-1f})
        p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(c));
    return _mm512_scalef_ps(p, x);
}

// 1 / (1 + e^-x), 2e-7 relative: an estimate of the inverse and one step of Newton's.
static inline __m512 sigmoid_of(__m512 x) {
    __m512 power = _mm512_min_ps(_mm512_set1_ps(126), _mm512_mul_ps(x, _mm512_set1_ps(-1.44269504088896341f)));
    __m512 below = _mm512_add_ps(_mm512_set1_ps(1), exp2_of(power)), r = _mm512_rcp14_ps(below);
    return _mm512_mul_ps(r, _mm512_fnmadd_ps(below, r, _mm512_set1_ps(2)));
}

static inline __m256i gated(__m512 g, __m512 u) {
    __m512 silu = wide((__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(g, sigmoid_of(g))));
    return (__m256i)_mm512_cvtneps_pbh(_mm512_mul_ps(silu, u));
}

template <> inline void gate(const bf16* g, const bf16* u, bf16* y, i64 n) {
    i64 i = 0;
    for (; i + 16 <= n; i += 16) _mm256_storeu_si256((__m256i*)(y + i), gated(wide(g + i), wide(u + i)));
    for (; i < n; i++) {
        float x = get(g[i]);
        put(y + i, rounded<bf16>(x * sigmoid(x)) * get(u[i]));
    }
}
#endif
