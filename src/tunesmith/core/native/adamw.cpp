// The norm of gradients, and AdamW (arXiv:1711.05101) with clipping and the rounded copy: each in one pass over memory,
// and one call for all tensors of a model.
#include "vectors.h"
#include <algorithm>

// Some elements of one of many tensors.
struct Part {
    i64 tensor, start, count;
};
static void cut(i64 tensor, i64 n, i64 size, std::vector<Part>& parts) {
    for (i64 start = 0; start < n; start += size) parts.push_back({tensor, start, start + size < n ? size : n - start});
}

// adamw.py packs these. low: bfloat16, else float.
struct Values {
    const void* x;
    i64 low, n;
};

template <class T> static float squares(const T* x, i64 n) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (i64 i = 0; i < n; i++) sum += get(x[i]) * get(x[i]);
    return sum;
}

// Of each CHUNK in float, of these in double and in their order, so that it is the same for any number of threads.
EXPORT double square_sum(const Values* all, i64 count, int threads) {
    std::vector<Part> parts;
    for (i64 t = 0; t < count; t++) cut(t, all[t].n, CHUNK, parts);
    std::vector<float> sums(parts.size());
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 p = 0; p < i64(parts.size()); p++) {
        const Part& part = parts[p];
        const Values& of = all[part.tensor];
        sums[p] = of.low ? squares((const bf16*)of.x + part.start, part.count)
                         : squares((const float*)of.x + part.start, part.count);
    }
    double sum = 0;
    for (float s : sums) sum += s;
    return sum;
}

// Of one step: rate and decay as a rate to step by and a share to keep, corrections as in the paper's algorithm 2.
struct AdamW {
    float clip, beta1, beta2, eps, step, root, keep;
    uint32_t seed;
};

// MurmurHash3's finaliser.
static inline uint32_t hashed(uint32_t x) {
    x = (x ^ (x >> 16)) * 0x85EBCA6Bu;
    x = (x ^ (x >> 13)) * 0xC2B2AE35u;
    return x ^ (x >> 16);
}
#ifdef HAS_VECTORS
static inline __m512i hashed(__m512i x) {
    x = _mm512_mullo_epi32(_mm512_xor_si512(x, _mm512_srli_epi32(x, 16)), _mm512_set1_epi32(int(0x85EBCA6Bu)));
    x = _mm512_mullo_epi32(_mm512_xor_si512(x, _mm512_srli_epi32(x, 13)), _mm512_set1_epi32(int(0xC2B2AE35u)));
    return _mm512_xor_si512(x, _mm512_srli_epi32(x, 16));
}
#endif

// Some elements of a weight in float, with moments in float and, or null, its rounded copy.
struct Whole {
    float *weight, *first, *second;
    bf16* copy;

    template <bool GIVEN, class T> void step(const T* grad, i64 n, AdamW by) const {
#pragma omp simd
        for (i64 i = 0; i < n; i++) {
            float g = GIVEN ? get(grad[i]) * by.clip : 0.0f;
            float m = first[i] + (1.0f - by.beta1) * (g - first[i]);
            float v = by.beta2 * second[i] + (1.0f - by.beta2) * g * g;
            first[i] = m;
            second[i] = v;
            weight[i] = weight[i] * by.keep - by.step * m / (std::sqrt(v) * by.root + by.eps);
        }
        if (copy) {
#pragma omp simd
            for (i64 i = 0; i < n; i++) put(copy + i, weight[i]);
        }
    }
};

// The same of a weight in bfloat16: with `rest`, the 16 bits that it lacks, it is a float (train/lean.py). Moments are
// bfloat16; the second is rounded stochastically, by a hash of `place` and seed.
struct Lean {
    bf16* weight;
    int16_t* rest;
    bf16 *first, *second;
    uint32_t place;

    template <bool GIVEN, class T> void step(const T* grad, i64 n, AdamW by) const {
#ifdef HAS_VECTORS
        const __m512 keep = _mm512_set1_ps(by.keep), rate = _mm512_set1_ps(by.step), eps = _mm512_set1_ps(by.eps);
        const __m512 root = _mm512_set1_ps(by.root), beta2 = _mm512_set1_ps(by.beta2), clip = _mm512_set1_ps(by.clip);
        const __m512 rest1 = _mm512_set1_ps(1.0f - by.beta1), rest2 = _mm512_set1_ps(1.0f - by.beta2);
        const __m512i odd = _mm512_set1_epi32(int(0x9E3779B9u)), seed = _mm512_set1_epi32(int(by.seed));
        for (i64 i = 0; i < n; i += 16) {
            const __mmask16 of = some(n - i);
            __m512 g = GIVEN ? _mm512_mul_ps(wide(grad + i, of), clip) : _mm512_setzero_ps();
            __m512 m = wide(first + i, of), v = _mm512_mul_ps(beta2, wide(second + i, of));
            m = _mm512_fmadd_ps(rest1, _mm512_sub_ps(g, m), m);
            v = _mm512_fmadd_ps(_mm512_mul_ps(rest2, g), g, v);
            __m512i low = _mm512_cvtepi16_epi32(_mm256_maskz_loadu_epi16(of, rest + i));
            __m512 w = (__m512)_mm512_add_epi32((__m512i)wide(weight + i, of), low);
            __m512 change = _mm512_div_ps(_mm512_mul_ps(rate, m), _mm512_fmadd_ps(_mm512_sqrt_ps(v), root, eps));
            __m512i bits = (__m512i)_mm512_fmsub_ps(w, keep, change);
            __m512i high = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x8000)), 16);
            _mm256_mask_storeu_epi16(weight + i, of, _mm512_cvtepi32_epi16(high));
            _mm256_mask_storeu_epi16(rest + i, of, _mm512_cvtepi32_epi16(bits));
            put(first + i, of, m);
            __m512i x = _mm512_add_epi32(_mm512_set1_epi32(int(place + uint32_t(i))), counting());
            x = hashed(_mm512_add_epi32(_mm512_mullo_epi32(x, odd), seed));
            x = _mm512_and_si512(x, _mm512_set1_epi32(0xffff));
            __m512i up = _mm512_srli_epi32(_mm512_add_epi32((__m512i)v, x), 16);
            _mm256_mask_storeu_epi16(second + i, of, _mm512_cvtepi32_epi16(up));
        }
#else
#pragma omp simd
        for (i64 i = 0; i < n; i++) {
            float g = GIVEN ? get(grad[i]) * by.clip : 0.0f, old = get(first[i]), w;
            float m = old + (1.0f - by.beta1) * (g - old);
            float v = by.beta2 * get(second[i]) + (1.0f - by.beta2) * g * g;
            uint32_t bits = (uint32_t(weight[i].bits) << 16) + uint32_t(int32_t(rest[i])), up;
            memcpy(&w, &bits, 4);
            w = w * by.keep - by.step * m / (std::sqrt(v) * by.root + by.eps);
            memcpy(&bits, &w, 4);
            memcpy(&up, &v, 4);
            weight[i].bits = uint16_t((bits + 0x8000u) >> 16);
            rest[i] = int16_t(uint16_t(bits));
            put(first + i, m);
            second[i].bits = uint16_t((up + (hashed((place + uint32_t(i)) * 0x9E3779B9u + by.seed) & 0xffff)) >> 16);
        }
#endif
    }
};

// A row that has never had a gradient, where nothing decays, stays as it is, and its moments' pages unwritten.
template <class M> static inline bool is_idle(const M* first, const M* second, i64 n, AdamW by) {
    uint32_t moved = by.keep != 1;
    for (i64 start = 0; !moved && start < n; start += 1024) {
        i64 end = std::min(n, start + 1024);
#pragma omp simd reduction(| : moved)
        for (i64 i = start; i < end; i++) moved |= (get(first[i]) != 0) | (get(second[i]) != 0);
    }
    return !moved;
}

// adamw.py packs these. rows: where the gradient of each row of `width` elements stands in grad, or -1 where it is
// zero. Null: grad is whole. low: grad is bfloat16, else float. beside: the rounded weight, or null. done: steps so far.
// lean: weight and moments are bfloat16, beside is what the weight lacks. salt: of the tensor's hashes.
struct Update {
    void* weight;
    const void* grad;
    i64 low;
    const i64* rows;
    i64 width;
    void *first, *second;
    float* done;
    void* beside;
    i64 n;
    float clip, rate, decay;
    i64 lean, salt;
};

template <class T, class S> static void update(const S& state, const Update& of, AdamW by, const Part& part) {
    const T* grad = (const T*)of.grad;
    i64 at = of.rows ? of.rows[part.start / of.width] * of.width : part.start;
    if (at >= 0)
        state.template step<true>(grad + at, part.count, by);
    else if (!is_idle(state.first, state.second, part.count, by))
        state.template step<false>(grad, part.count, by);
}

static void update(const Update& of, AdamW by, const Part& part) {
    const i64 at = part.start;
    if (of.lean) {
        Lean state{(bf16*)of.weight + at, (int16_t*)of.beside + at, (bf16*)of.first + at, (bf16*)of.second + at, uint32_t(at)};
        of.low ? update<bf16>(state, of, by, part) : update<float>(state, of, by, part);
    } else {
        Whole state{(float*)of.weight + at, (float*)of.first + at, (float*)of.second + at,
                    of.beside ? (bf16*)of.beside + at : nullptr};
        of.low ? update<bf16>(state, of, by, part) : update<float>(state, of, by, part);
    }
}

EXPORT void adamw(const Update* all, i64 count, double beta1, double beta2, float eps, int threads) {
    std::vector<AdamW> by;
    std::vector<Part> parts;
    for (i64 t = 0; t < count; t++) {
        const Update& of = all[t];
        double done = *of.done += 1;
        float correction1 = 1 - std::pow(beta1, done), correction2 = 1 - std::pow(beta2, done);
        by.push_back({of.clip, float(beta1), float(beta2), eps, of.rate / correction1, 1.0f / std::sqrt(correction2),
                      1.0f - of.rate * of.decay, uint32_t(done) * 0x9E3779B1u + uint32_t(of.salt) * 0x85EBCA77u});
        cut(t, of.n, of.rows ? of.width : CHUNK, parts);
    }
// Threads take parts in turn, since rows of an embedding are less work than parts of other tensors; and the same ones
// each time, since a part's memory is near the processor that wrote it first.
#pragma omp parallel for num_threads(threads) schedule(static, 4)
    for (i64 p = 0; p < i64(parts.size()); p++) update(all[parts[p].tensor], by[parts[p].tensor], parts[p]);
}
