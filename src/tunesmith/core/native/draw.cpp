// A token drawn from each row of logits, with its log-probability and the row's entropy.
#include <algorithm>
#include <functional>
#include <utility>

#include "common.h"

const i64 PART = 512;  // numbers added in float before their sum is added in double

// z = (logits - their highest) * sharpness. Of the tokens whose logit is at least least[m] (null: of all), in their
// order, the first whose running sum of exp(z) passes uniforms[m] times the whole sum. logps, entropies: of softmax(z)
// over all tokens. A row that holds a NaN has NaN for its logp.
template <class T>
static void draw(const void* logits_, const double* uniforms, const float* least, i64* tokens, float* logps,
                 float* entropies, i64 rows, i64 width, float sharpness, int threads) {
    const T* logits = (const T*)logits_;
    i64 parts = (width + PART - 1) / PART;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 m = 0; m < rows; m++) {
        const T* x = logits + m * width;
        float highest = -INFINITY, lowest = least ? least[m] : -INFINITY;
#pragma omp simd reduction(max : highest)
        for (i64 j = 0; j < width; j++) highest = get(x[j]) > highest ? get(x[j]) : highest;
        float *kept = scratch(width + parts), *sums = kept + width;
        double sum = 0, weighted = 0, whole = 0;
        for (i64 part = 0; part < parts; part++) {
            i64 start = part * PART, end = start + PART < width ? start + PART : width;
            float s = 0, w = 0, k = 0;
#pragma omp simd reduction(+ : s, w, k)
            for (i64 j = start; j < end; j++) {
                float z = (get(x[j]) - highest) * sharpness;
                float e = z < -87.0f ? 0.0f : fast_exp(z);  // fast_exp does not go below that
                s += e;
                w += e * (z < -87.0f ? 0.0f : z);  // 0 times -inf would be NaN
                kept[j] = get(x[j]) >= lowest ? e : 0.0f;
                k += kept[j];
            }
            sum += s;
            weighted += w;
            sums[part] = k;
            whole += k;
        }
        double target = uniforms[m] * whole, passed = 0;
        i64 part = 0, at = 0;
        while (part < parts - 1 && passed + sums[part] <= target) passed += sums[part++];
        for (i64 j = part * PART; j < width && j < (part + 1) * PART; j++) {
            if (kept[j] > 0) at = j;  // the last one, should rounding keep the sum below the target
            passed += kept[j];
            if (passed > target) break;
        }
        double total = std::log(sum);
        tokens[m] = at;
        logps[m] = float((get(x[at]) - highest) * sharpness - total);
        entropies[m] = float(total - weighted / sum);
    }
}
BOTH(draw,
     (const void* logits, const double* uniforms, const float* least, i64* tokens, float* logps, float* entropies, i64 rows,
      i64 width, float sharpness, int threads),
     (logits, uniforms, least, tokens, logps, entropies, rows, width, sharpness, threads))

// least[m] goes up to the lowest logit of the nucleus: of the tokens whose logit is at least least[m], those before which
// the likelier ones hold less than top_p of all their exp(z). The masses of narrow bins of z find the bin where that
// changes, and only its tokens are sorted.
const i64 BINS = 1024;
const float PER_NAT = 32;

template <class T>
static void nucleus(const void* logits_, float* least, i64 rows, i64 width, float sharpness, float top_p, int threads) {
    const T* logits = (const T*)logits_;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 m = 0; m < rows; m++) {
        const T* x = logits + m * width;
        float highest = -INFINITY, lowest = least[m];
#pragma omp simd reduction(max : highest)
        for (i64 j = 0; j < width; j++) highest = get(x[j]) > highest ? get(x[j]) : highest;
        float *e = scratch(2 * width), *bin = e + width;  // bins are whole numbers below 2^24
#pragma omp simd
        for (i64 j = 0; j < width; j++) {
            float z = (get(x[j]) - highest) * sharpness;
            float from = -z * PER_NAT;
            e[j] = get(x[j]) >= lowest && z >= -87.0f ? fast_exp(z) : 0.0f;
            bin[j] = from < float(BINS - 1) ? std::floor(from) : float(BINS - 1);
        }
        double masses[BINS] = {0}, whole = 0, before = 0;
        for (i64 j = 0; j < width; j++) masses[i64(bin[j])] += e[j];
        for (i64 b = 0; b < BINS; b++) whole += masses[b];
        double wanted = double(top_p) * whole;
        i64 b = 0;
        while (b < BINS - 1 && before + masses[b] < wanted) before += masses[b++];
        std::vector<std::pair<float, float>> inside;
        for (i64 j = 0; j < width; j++)
            if (bin[j] == float(b) && e[j] > 0) inside.push_back({get(x[j]), e[j]});
        std::sort(inside.begin(), inside.end(), std::greater<std::pair<float, float>>());
        for (const auto& token : inside) {
            if (before >= wanted) break;
            least[m] = token.first;
            before += token.second;
        }
    }
}
BOTH(nucleus, (const void* logits, float* least, i64 rows, i64 width, float sharpness, float top_p, int threads),
     (logits, least, rows, width, sharpness, top_p, threads))
