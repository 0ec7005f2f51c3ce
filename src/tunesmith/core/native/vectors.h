// Numbers of bfloat16 in vectors of 16, where the processor rounds these by itself; HAS_VECTORS says so.
#pragma once
#include "common.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__)
#define HAS_VECTORS
#include <immintrin.h>

const float LOG2E = 1.44269504088896341f;

// 16 elements at a time; of the last ones, as many as there are.
static inline __mmask16 some(i64 n) { return n >= 16 ? __mmask16(-1) : __mmask16((1 << n) - 1); }
static inline __m512i counting() { return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
static inline __m512 wide(__m256i x) { return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16); }
static inline __m512 wide(const bf16* x, __mmask16 of) { return wide(_mm256_maskz_loadu_epi16(of, x)); }
static inline __m512 wide(const float* x, __mmask16 of) { return _mm512_maskz_loadu_ps(of, x); }
static inline __m512 rounded_of(__m512 x) { return wide((__m256i)_mm512_cvtneps_pbh(x)); }
static inline void put(bf16* to, __mmask16 of, __m512 x) { _mm256_mask_storeu_epi16(to, of, (__m256i)_mm512_cvtneps_pbh(x)); }

// 2^x, 2e-7 relative: a polynomial of what x is above a whole number, the power of which scalef multiplies by.
static inline __m512 exp2_of(__m512 x) {
    __m512 rest = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC), p = _mm512_set1_ps(1.8775767e-3f);
    for (float c : {8.9893401e-3f, 5.5826318e-2f, 2.4015362e-1f, 6.9315307e-1f, 9.9999993e-1f})
        p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(c));
    return _mm512_scalef_ps(p, x);
}
#endif
