// What the kernels share: numbers in two types, exp, a buffer for each thread, and one entry for each type.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

typedef int64_t i64;

struct bf16 {
    uint16_t bits;
};

static inline float get(float x) { return x; }
static inline float get(bf16 x) {
    uint32_t wide = uint32_t(x.bits) << 16;
    float out;
    memcpy(&out, &wide, 4);
    return out;
}
static inline void put(float* to, float x) { *to = x; }
static inline void put(bf16* to, float x) {  // to the nearest, ties to even; NaN stays NaN
    uint32_t wide;
    memcpy(&wide, &x, 4);
    uint32_t rounded = (wide + 0x7fff + ((wide >> 16) & 1)) >> 16;
    to->bits = uint16_t(x == x ? rounded : 0x7fc0);
}
static inline float float_of(i64 bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
template <class T> static inline float rounded(float x) {
    T out;
    put(&out, x);
    return get(out);
}

// exp(x): 2^n times a polynomial of the rest (Cephes), 2e-7 relative; below -87 it is exp(-87), about 1e-38.
static inline float fast_exp(float x) {
    x = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
    float n = __builtin_rintf(x * 1.44269504088896341f);
    float r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t power = (int32_t(n) + 127) << 23;
    float scale;
    memcpy(&scale, &power, 4);
    return p * scale;
}
static inline float sigmoid(float x) { return 1.0f / (1.0f + fast_exp(-x)); }

// One head turned to its position by cosines and sines (arXiv:2104.09864), its halves paired as transformers does.
template <class T> static inline void turn(const T* from, const float* c, const float* s, T* to, i64 half) {
#pragma omp simd
    for (i64 j = 0; j < half; j++) {
        float a = get(from[j]), b = get(from[j + half]);
        put(to + j, a * c[j] - b * s[j]);
        put(to + j + half, b * c[j + half] + a * s[j + half]);
    }
}

// The rotation's transpose, from one head's gradient to the other.
template <class S, class T> static inline void turn_back(const S* from, const float* c, const float* s, T* to, i64 half) {
#pragma omp simd
    for (i64 j = 0; j < half; j++) {
        float a = get(from[j]), b = get(from[j + half]);
        put(to + j, a * c[j] + b * s[j + half]);
        put(to + j + half, b * c[j + half] - a * s[j]);
    }
}

// The keys [first, last) that a query at a place sees: up to itself (causal) or all, at most `window` away (0: any).
static inline void seen(i64 place, i64 real_keys, i64 keys, i64 causal, i64 window, i64* first, i64* last) {
    *first = window && place - window + 1 > 0 ? place - window + 1 : 0;
    *last = causal ? place + 1 : (window && place + window < real_keys ? place + window : real_keys);
    if (*last > keys) *last = keys;
}

static thread_local std::vector<float> buffer;
static float* scratch(i64 n) {
    if (i64(buffer.size()) < n) buffer.resize(n);
    return buffer.data();
}

// Softmax of scale * scores[first, last), into `to` (which may be the scores), zero up to `width`; of no key, zeros.
template <class S, class T>
static void softmax_row(const S* scores, i64 width, i64 first, i64 last, float scale, T* to) {
    if (last <= first) {
        memset((void*)to, 0, width * sizeof(T));
        return;
    }
    float* e = scratch(width);
    float highest = -INFINITY, sum = 0;
#pragma omp simd reduction(max : highest)
    for (i64 j = first; j < last; j++) {
        e[j] = get(scores[j]) * scale;
        highest = e[j] > highest ? e[j] : highest;
    }
#pragma omp simd reduction(+ : sum)
    for (i64 j = first; j < last; j++) {
        e[j] = fast_exp(e[j] - highest);
        sum += e[j];
    }
    float share = highest == highest ? 1.0f / sum : NAN;
#pragma omp simd
    for (i64 j = first; j < last; j++) put(to + j, e[j] * share);
    memset((void*)to, 0, first * sizeof(T));
    memset((void*)(to + last), 0, (width - last) * sizeof(T));
}

#define BOTH(NAME, PARAMETERS, ARGUMENTS)                       \
    EXPORT void NAME##_float32 PARAMETERS { NAME<float> ARGUMENTS; } \
    EXPORT void NAME##_bfloat16 PARAMETERS { NAME<bf16> ARGUMENTS; }

const i64 CHUNK = 4096;  // elements that one thread takes at a time
