// The norm of gradients, and AdamW (arXiv:1711.05101) with clipping and the rounded copy: each in one pass over memory,
// and one call for all tensors of a model.
#include "common.h"

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

struct AdamW {
    float clip, beta1, beta2, eps, step, root, keep;
};

template <bool GIVEN, class T>
static inline void adamw_part(float* weight, const T* grad, float* first, float* second, bf16* copy, i64 n, AdamW by) {
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

// A row that has never had a gradient, where nothing decays, stays as it is, and its moments' pages unwritten.
static inline bool is_idle(const float* first, const float* second, i64 n, AdamW by) {
    uint32_t moved = by.keep != 1;
    for (i64 start = 0; !moved && start < n; start += 1024) {
        i64 end = std::min(n, start + 1024);
#pragma omp simd reduction(| : moved)
        for (i64 i = start; i < end; i++) moved |= (first[i] != 0) | (second[i] != 0);
    }
    return !moved;
}

// adamw.py packs these. rows: where the gradient of each row of `width` elements stands in grad, or -1 where it is
// zero. Null: grad is whole. low: grad is bfloat16, else float. copy: the rounded weight, or null. done: steps so far.
struct Update {
    float* weight;
    const void* grad;
    i64 low;
    const i64* rows;
    i64 width;
    float *first, *second, *done;
    bf16* copy;
    i64 n;
    float clip, rate, decay;
};

template <class T> static void update(const Update& of, AdamW by, const Part& part) {
    const T* grad = (const T*)of.grad;
    float *weight = of.weight + part.start, *first = of.first + part.start, *second = of.second + part.start;
    bf16* copy = of.copy ? of.copy + part.start : nullptr;
    i64 at = of.rows ? of.rows[part.start / of.width] * of.width : part.start;
    if (at >= 0)
        adamw_part<true>(weight, grad + at, first, second, copy, part.count, by);
    else if (!is_idle(first, second, part.count, by))
        adamw_part<false>(weight, grad, first, second, copy, part.count, by);
}

EXPORT void adamw(const Update* all, i64 count, double beta1, double beta2, float eps, int threads) {
    std::vector<AdamW> by;
    std::vector<Part> parts;
    for (i64 t = 0; t < count; t++) {
        const Update& of = all[t];
        double done = *of.done += 1;
        float correction1 = 1 - std::pow(beta1, done), correction2 = 1 - std::pow(beta2, done);
        by.push_back({of.clip, float(beta1), float(beta2), eps, of.rate / correction1, 1.0f / std::sqrt(correction2),
                      1.0f - of.rate * of.decay});
        cut(t, of.n, of.rows ? of.width : CHUNK, parts);
    }
// Threads take parts in turn, since rows of an embedding are less work than parts of other tensors; and the same ones
// each time, since a part's memory is near the processor that wrote it first.
#pragma omp parallel for num_threads(threads) schedule(static, 4)
    for (i64 p = 0; p < i64(parts.size()); p++) {
        i64 t = parts[p].tensor;
        all[t].low ? update<bf16>(all[t], by[t], parts[p]) : update<float>(all[t], by[t], parts[p]);
    }
}

// The same with all state in bfloat16 (train/lean.py): weight + error is the weight; error and second are rounded
// stochastically, by a hash of the place.
static inline uint32_t hashed(uint32_t x) {
    x = (x ^ (x >> 16)) * 0x85EBCA6Bu;
    x = (x ^ (x >> 13)) * 0xC2B2AE35u;
    return x ^ (x >> 16);
}
static inline bf16 round_by(float x, uint32_t random) {
    uint32_t wide;
    memcpy(&wide, &x, 4);
    return bf16{uint16_t((wide + random) >> 16)};
}

template <class T>
static void adamw_lean(bf16* weight, bf16* error, bf16* first, bf16* second, const void* grad_, i64 n, float clip,
                       float rate, float beta1, float beta2, float eps, float decay, float correction1,
                       float correction2, i64 seed, int threads) {
    const T* grad = (const T*)grad_;
    float step = rate / correction1, root = 1.0f / std::sqrt(correction2), keep = 1.0f - rate * decay;
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (i64 i = 0; i < n; i++) {
        float g = get(grad[i]) * clip, old = get(first[i]);
        float m = old + (1.0f - beta1) * (g - old);
        float v = beta2 * get(second[i]) + (1.0f - beta2) * g * g;
        float value = (get(weight[i]) + get(error[i])) * keep - step * m / (std::sqrt(v) * root + eps);
        uint32_t random = hashed(uint32_t(i) * 0x9E3779B9u + uint32_t(seed));
        put(first + i, m);
        second[i] = round_by(v, random & 0xffff);
        put(weight + i, value);
        error[i] = round_by(value - get(weight[i]), random >> 16);
    }
}
BOTH(adamw_lean,
     (bf16* weight, bf16* error, bf16* first, bf16* second, const void* grad, i64 n, float clip, float rate, float beta1,
      float beta2, float eps, float decay, float correction1, float correction2, i64 seed, int threads),
     (weight, error, first, second, grad, n, clip, rate, beta1, beta2, eps, decay, correction1, correction2, seed, threads))

