// Random numbers that depend on a seed and on their place alone, not on the threads: Philox 4x32-10 (Salmon et al.,
// "Parallel random numbers: as easy as 1, 2, 3", SC 2011), four words for each counter and key.
#pragma once
#include "vectors.h"

// Dropout takes half a word for each element: those below this are dropped, with probability p to the nearest 65,536th.
static inline uint32_t dropped_below(float p) { return uint32_t(std::lround(double(p) * 65536)); }

// What is not dropped is multiplied by this, so that the mean stays.
static inline float kept_by(float p) {
    uint32_t below = dropped_below(p);
    return below < 65536 ? 65536.0f / float(65536 - below) : 0.0f;
}

// The counter (a, b, c, d) becomes its four words.
static inline void philox(uint32_t& a, uint32_t& b, uint32_t& c, uint32_t& d, uint64_t seed) {
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
}

#ifdef HAS_VECTORS
// The high and the low halves of 16 products.
static inline void halves(__m512i x, __m512i by, __m512i* high, __m512i* low) {
    __m512i even = _mm512_mul_epu32(x, by), odd = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), by);
    *high = _mm512_mask_mov_epi32(_mm512_srli_epi64(even, 32), 0xaaaa, odd);
    *low = _mm512_mask_mov_epi32(even, 0xaaaa, _mm512_slli_epi64(odd, 32));
}

// 16 counters at once: each one's four words stand in the four vectors.
static inline void philox(__m512i* words, uint64_t seed) {
    uint32_t k = uint32_t(seed), l = uint32_t(seed >> 32);
    for (int round = 0; round < 10; round++, k += 0x9E3779B9u, l += 0xBB67AE85u) {
        __m512i x, y, low_x, low_y;
        halves(words[0], _mm512_set1_epi32(int(0xD2511F53u)), &x, &low_x);
        halves(words[2], _mm512_set1_epi32(int(0xCD9E8D57u)), &y, &low_y);
        words[0] = _mm512_xor_si512(_mm512_xor_si512(y, words[1]), _mm512_set1_epi32(int(k)));
        words[2] = _mm512_xor_si512(_mm512_xor_si512(x, words[3]), _mm512_set1_epi32(int(l)));
        words[1] = low_y;
        words[3] = low_x;
    }
}
#endif
