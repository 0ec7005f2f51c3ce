// The head's losses and their gradients without logits in memory, by tiles (tiles.h). A block of the vocabulary stays
// in a core's cache while all rows pass it, 32 at a time; what tiles compute are logits of 32 of the vocabulary and 32
// rows, the latter lying across, and while they compute the next ones, exponentials are made of the last.
#include "tiles.h"
#include "vectors.h"
#include <memory>

#ifdef HAS_TILES
namespace {

const i64 SLICES = 4;  // of the vocabulary, whatever the threads: a row's numbers depend on nothing but the row
const i64 CACHED = 1200 << 10;  // bytes of a block and of what is computed with it
const i64 GROUP = 16;  // panels of 32 rows whose gradients are multiplied together
const i64 PAIR = 2 * TILE_BYTES, BLOCK = PANEL * PANEL;
const float FAR = 20;  // a logit that is 2^FAR times as likely as the reference is the next reference

inline __m512 exponential(const float* logits, __m512 reference) {
    return exp2_of(_mm512_fmsub_ps(_mm512_load_ps(logits), _mm512_set1_ps(LOG2E), reference));
}

// sums (32, 32) = (BEGIN) or += a (32, .) b (., 32), of each a pair of tiles a step; b's stay in the nearest cache.
template <bool BEGIN, class Beside>
inline void multiply_pairs(const char* a, const char* b, i64 steps, float* sums, Beside beside) {
    const i64 wide = PANEL * 4;
    float *right = sums + TILE, *below = sums + TILE * PANEL;
    if (BEGIN) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, sums, wide);
        _tile_loadd(1, right, wide);
        _tile_loadd(2, below, wide);
        _tile_loadd(3, below + TILE, wide);
    }
    for (i64 s = 0; s < steps; s++, a += PAIR, b += PAIR) {
        _tile_stream_loadd(4, a, 64);
        _tile_loadd(6, b, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, b + TILE_BYTES, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_stream_loadd(5, a + TILE_BYTES, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        beside();
    }
    _tile_stored(0, sums, wide);
    _tile_stored(1, right, wide);
    _tile_stored(2, below, wide);
    _tile_stored(3, below + TILE, wide);
}

template <class T> T* line(T* of) { return (T*)((uintptr_t(of) + 63) & ~uintptr_t(63)); }

struct Head {
    const bf16 *states, *weight;
    i64 rows, width, hidden;
    const i64* targets;
    i64 steps = (hidden + DEEP - 1) / DEEP, panels = (rows + PANEL - 1) / PANEL, parts = (width + PANEL - 1) / PANEL;
    std::vector<char> packed = std::vector<char>(panels * steps * PAIR + 64);

    char* states_of(i64 panel) { return line(packed.data()) + panel * steps * PAIR; }
    i64 target(i64 row) const { return row < rows ? targets[row] : -1; }

    // States of 32 rows as the second operand of logits.
    void pack_states(i64 panel) {
        Term term{nullptr, states, 0, 0, 0, 1, hidden, 0, hidden};
        for (i64 s = 0; s < steps; s++)
            pack_step({&term, 0, hidden, steps}, s, panel * PANEL, rows, states_of(panel) + s * PAIR);
    }

    // Rows of the weight as the first operand of logits; its columns as that of sums of its rows, if there is a `down`.
    void pack_weight(i64 first, i64 count, char* across, char* down) const {
        Term wide{weight, nullptr, hidden, 1}, tall{weight, nullptr, 1, hidden};
        for (i64 i = 0; i < count; i++) {
            i64 row = (first + i) * PANEL, real = std::min(PANEL, width - row);
            for (i64 s = 0; s < steps; s++) {
                i64 k = s * DEEP, deep = std::min(DEEP, hidden - k);
                pack_a({&wide, k, deep, 1}, row, real, across + (i * steps + s) * PAIR);
                if (down) pack_a({&tall, row, real, 1}, k, deep, down + (s * count + i) * PAIR);
            }
        }
    }

    // Logits of a panel with `count` times 32 of the vocabulary: ready(i, logits) when the i-th are there, then
    // pair(i, logits, n) of two of the vocabulary, the n-th two, and done(i).
    template <class Ready, class Two, class Done>
    void each(i64 panel, const char* across, i64 count, Ready ready, Two pair, Done done) {
        alignas(64) float room[2][BLOCK];
        i64 apiece = (TILE + steps - 1) / steps;
        const char* right = states_of(panel);
        for (i64 i = 0; i <= count; i++) {
            float* last = room[(i + 1) % 2];
            i64 next = i ? 0 : TILE;
            if (i) ready(i - 1, last);
            if (i < count)
                multiply_pairs<true>(across + i * steps * PAIR, right, steps, room[i % 2], [&] {
                    for (i64 n = 0; n < apiece && next < TILE; n++) pair(i - 1, last, next++);
                });
            while (next < TILE) pair(i - 1, last, next++);
            if (i) done(i - 1);
        }
    }
};

// Of 32 rows and a slice of the vocabulary. reference: of the exponents, to base 2; sum: of exponentials, without the
// target's; top, best: the largest logit and where it is first; score: the target's logit.
struct alignas(64) Found {
    float reference[PANEL], sum[PANEL], top[PANEL], score[PANEL];
    int32_t best[PANEL], target[PANEL];
};

// Attention by blocks (arXiv:2205.14135) with the weight as keys and values: each row has a sum of exponentials
// relative to a reference, and the weight's rows added up by them; without the target's, whose share less one is minus
// all others'.
template <bool GRADIENT> struct Losses : Head {
    std::unique_ptr<float[]> added{GRADIENT ? new float[SLICES * panels * steps * BLOCK + 16] : nullptr};
    std::vector<Found> found = std::vector<Found>(SLICES * panels);

    // (hidden, 32 rows)
    float* added_to(i64 slice, i64 panel) { return line(added.get()) + (slice * panels + panel) * steps * BLOCK; }
    Found& found_in(i64 slice, i64 panel) { return found[slice * panels + panel]; }

    void begin(i64 panel) {
        pack_states(panel);
        for (i64 slice = 0; slice < SLICES; slice++) {
            if (GRADIENT) std::fill_n(added_to(slice, panel), steps * BLOCK, 0.0f);
            for (i64 i = 0; i < PANEL; i++) {
                Found& f = found_in(slice, panel);
                f.reference[i] = f.top[i] = -INFINITY, f.sum[i] = 0, f.score[i] = NAN, f.best[i] = 0;
                f.target[i] = target(panel * PANEL + i);
            }
        }
    }

    // Panels [from, to) with a slice of the vocabulary.
    void pass(i64 slice, i64 from, i64 to) {
        i64 end = parts * (slice + 1) / SLICES, most = std::max(i64(1), CACHED / (steps * PAIR * (GRADIENT ? 2 : 1)));
        char* across = room(::panels, most * (2 * steps + 1) * PAIR);
        char *down = GRADIENT ? across + most * steps * PAIR : nullptr, *shares = across + most * 2 * steps * PAIR;
        for (i64 first = parts * slice / SLICES, count; first < end; first += count) {
            count = std::min(most, end - first);
            pack_weight(first, count, across, down);
            for (i64 panel = from; panel < to; panel++) meet(slice, panel, first, count, across, down, shares);
        }
    }

    // One panel and one block.
    void meet(i64 slice, i64 panel, i64 first, i64 count, const char* across, const char* down, char* shares) {
        const __m512i order =
            _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4,
                             19, 3, 18, 2, 17, 1, 16, 0);
        Found& f = found_in(slice, panel);
        __m512 reference[2], sum[2];
        i64 over = 0;  // shares before this are in the sums
        auto add = [&](i64 end) {
            float* sums = added_to(slice, panel);
            for (i64 s = 0; GRADIENT && s < steps; s++, sums += BLOCK)
                multiply_pairs<false>(down + (s * count + over) * PAIR, shares + over * PAIR, end - over, sums, [] {});
            over = end;
        };
        auto ready = [&](i64 i, float* logits) {
            if (look(f, (first + i) * PANEL, logits)) add(i), move(f, slice, panel);
            for (i64 side = 0; side < 2; side++) {
                reference[side] = _mm512_load_ps(f.reference + side * TILE);
                sum[side] = _mm512_load_ps(f.sum + side * TILE);
            }
        };
        auto pair = [&](i64 i, const float* logits, i64 n) {
            const float* from = logits + n * 2 * PANEL;
#pragma GCC unroll 2
            for (i64 side = 0; side < 2; side++, from += TILE) {
                __m512 even = exponential(from, reference[side]), odd = exponential(from + PANEL, reference[side]);
                sum[side] = _mm512_add_ps(sum[side], _mm512_add_ps(even, odd));
                if (!GRADIENT) continue;
                __m512i both = _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(odd, even));
                _mm512_store_si512(shares + i * PAIR + side * TILE_BYTES + n * 64, both);
            }
        };
        auto done = [&](i64) {
            for (i64 side = 0; side < 2; side++) _mm512_store_ps(f.sum + side * TILE, sum[side]);
        };
        each(panel, across, count, ready, pair, done);
        add(count);
    }

    // Takes from logits what exponentials do not tell, and the target's out of them. Whether a reference is too low.
    bool look(Found& f, i64 row, float* logits) const {
        i64 real = std::min(PANEL, width - row);
        std::fill(logits + real * PANEL, logits + BLOCK, -INFINITY);
        bool low = false;
        for (i64 side = 0; side < PANEL; side += TILE) {
            __m512 even = _mm512_set1_ps(-INFINITY), odd = even, top = _mm512_load_ps(f.top + side);
            for (i64 v = 0; v < PANEL; v += 2) {
                even = _mm512_max_ps(_mm512_load_ps(logits + v * PANEL + side), even);
                odd = _mm512_max_ps(_mm512_load_ps(logits + (v + 1) * PANEL + side), odd);
            }
            __m512 highest = _mm512_max_ps(even, odd);
            if (_mm512_cmp_ps_mask(highest, top, _CMP_GT_OQ)) {
                __m512i best = _mm512_load_si512(f.best + side);
                for (i64 v = 0; v < real; v++) {
                    __m512 x = _mm512_load_ps(logits + v * PANEL + side);
                    __mmask16 more = _mm512_cmp_ps_mask(x, top, _CMP_GT_OQ);
                    top = _mm512_mask_mov_ps(top, more, x);
                    best = _mm512_mask_mov_epi32(best, more, _mm512_set1_epi32(row + v));
                }
                _mm512_store_ps(f.top + side, top);
                _mm512_store_si512(f.best + side, best);
            }
            __m512 limit = _mm512_add_ps(_mm512_load_ps(f.reference + side), _mm512_set1_ps(FAR));
            low |= _mm512_cmp_ps_mask(_mm512_mul_ps(highest, _mm512_set1_ps(LOG2E)), limit, _CMP_GT_OQ) != 0;
            __m512i at = _mm512_sub_epi32(_mm512_load_si512(f.target + side), _mm512_set1_epi32(row));
            __mmask16 here = _mm512_cmp_epu32_mask(at, _mm512_set1_epi32(real), _MM_CMPINT_LT);
            for (i64 i = side; here; i++, here >>= 1)
                if (here & 1) {
                    float* logit = logits + (f.target[i] - row) * PANEL + i;
                    f.score[i] = *logit;
                    *logit = -INFINITY;
                }
        }
        return low;
    }

    // Of rows whose largest logit so far is far above the reference it becomes the reference, and their sums follow.
    void move(Found& f, i64 slice, i64 panel) {
        alignas(64) float by[PANEL];
        for (i64 i = 0; i < PANEL; i++) {
            float next = f.top[i] * LOG2E;
            by[i] = 1;
            if (!(next > f.reference[i] + FAR)) continue;
            by[i] = std::exp2(f.reference[i] - next);
            f.reference[i] = next, f.sum[i] *= by[i];
        }
        float* sums = added_to(slice, panel);
        for (i64 k = 0; GRADIENT && k < hidden; k++)
            for (i64 i = 0; i < PANEL; i++) sums[k * PANEL + i] *= by[i];
    }

    // Slices put together: 32 rows' losses, normalisers to base 2, likeliest of the vocabulary, and gradient.
    void end(i64 panel, float* losses, float* normalisers, i64* best, bf16* out) {
        alignas(64) float by[SLICES][PANEL];
        float others[PANEL];
        i64 row = panel * PANEL, real = std::min(PANEL, rows - row);
        for (i64 i = 0; i < real; i++) {
            float reference = -INFINITY, top = -INFINITY, score = NAN;
            i64 at = 0;
            double sum = 0;
            for (i64 s = 0; s < SLICES; s++) {
                const Found& f = found_in(s, panel);
                if (f.reference[i] > reference) reference = f.reference[i];
                if (f.top[i] > top) top = f.top[i], at = f.best[i];
                if (f.score[i] == f.score[i]) score = f.score[i];
            }
            for (i64 s = 0; s < SLICES; s++) {
                const Found& f = found_in(s, panel);
                by[s][i] = std::exp2(f.reference[i] - reference);
                sum += double(by[s][i]) * f.sum[i];
            }
            double above = reference * std::log(2.0) - score, all = sum + std::exp(-above);
            losses[row + i] = std::max(std::log(all) + above, 0.0), best[row + i] = at;
            normalisers[row + i] = reference + std::log2(all);
            for (i64 s = 0; s < SLICES; s++) by[s][i] /= all;
            others[i] = sum / all;
        }
        for (i64 side = 0; GRADIENT && side < real; side += TILE)
            for (i64 k = 0; k < hidden; k += TILE) store(panel, side, k, by, others, out);
    }

    // 16 rows and 16 hidden elements of the gradient.
    void store(i64 panel, i64 side, i64 k, const float by[SLICES][PANEL], const float* others, bf16* out) {
        __m512 sums[TILE] = {};
        for (i64 j = 0; j < TILE; j++)
            for (i64 s = 0; s < SLICES; s++)
                sums[j] = _mm512_fmadd_ps(_mm512_load_ps(added_to(s, panel) + (k + j) * PANEL + side),
                                          _mm512_load_ps(by[s] + side), sums[j]);
        transpose((__m512i*)sums);
        __mmask16 mask = hidden - k >= TILE ? __mmask16(-1) : __mmask16((1 << (hidden - k)) - 1);
        for (i64 i = 0, row = panel * PANEL + side; i < std::min(TILE, rows - row); i++) {
            const bf16* of_target = weight + targets[row + i] * hidden + k;
            __m512 own = (__m512)_mm512_slli_epi32(pairs(of_target, nullptr, mask), 16);
            __m512 x = _mm512_fnmadd_ps(_mm512_set1_ps(others[side + i]), own, sums[i]);
            _mm256_mask_storeu_epi16(out + (row + i) * hidden + k, mask, (__m256i)_mm512_cvtneps_pbh(x));
        }
    }
};

template <bool GRADIENT>
void losses_of(Losses<GRADIENT>& head, float* losses, float* normalisers, i64* best, bf16* out, int threads) {
    Shapes shapes;
    i64 groups = std::min((threads + SLICES - 1) / SLICES, head.panels);
#pragma omp parallel num_threads(threads)
    {
        _tile_loadconfig(&shapes);
#pragma omp for schedule(static)
        for (i64 p = 0; p < head.panels; p++) head.begin(p);
#pragma omp for schedule(static)
        for (i64 i = 0; i < SLICES * groups; i++)
            head.pass(i / groups, head.panels * (i % groups) / groups, head.panels * (i % groups + 1) / groups);
#pragma omp for schedule(static)
        for (i64 p = 0; p < head.panels; p++) head.end(p, losses, normalisers, best, out);
        _tile_release();
    }
}

// The gradient by the weight: logits are computed again, with their normalisers known.
struct OfWeight : Head {
    const float *normalisers, *own, *factors;  // own: the gradient by the target's logit
    float rest;  // that all shares are less by
    bf16* out;
    std::vector<char> across = std::vector<char>(panels * steps * PAIR + 64);

    // States of all rows as the second operand of sums over rows: of 32 hidden elements, panel after panel.
    char* states_by(i64 step, i64 panel) { return line(across.data()) + (step * panels + panel) * PAIR; }

    void begin(i64 panel) {
        pack_states(panel);
        Term term{nullptr, states, 0, 0, 0, hidden, 1, 0, rows};
        for (i64 s = 0; s < steps; s++)
            pack_step({&term, 0, rows, panels}, panel, s * PANEL, hidden, states_by(s, panel));
    }

    // Times 32 of the vocabulary, so many at once.
    i64 most() const { return std::max(i64(1), CACHED / (steps * (PAIR + BLOCK * 4) + GROUP * PAIR)); }

    void pass(i64 first, i64 count) {
        char* left = room(::panels, count * (steps + GROUP) * PAIR);
        char* shares = left + count * steps * PAIR;
        float* sums = room(totals, count * steps * BLOCK);
        std::fill(sums, sums + count * steps * BLOCK, 0.0f);
        pack_weight(first, count, left, nullptr);
        for (i64 panel = 0; panel < panels; panel += GROUP) {
            i64 some = std::min(GROUP, panels - panel);
            for (i64 p = 0; p < some; p++) share(panel + p, first, count, left, shares + p * PAIR, some * PAIR);
            for (i64 s = 0; s < steps; s++)
                for (i64 i = 0; i < count; i++)
                    multiply_pairs<false>(shares + i * some * PAIR, states_by(s, panel), some,
                                          sums + (i * steps + s) * BLOCK, [] {});
        }
        for (i64 i = 0; i < count; i++)
            for (i64 s = 0; s < steps; s++) {
                i64 row = (first + i) * PANEL, k = s * PANEL;
                Job job{width, hidden, 1, (char*)out, hidden, 1, 0, 0, nullptr, 0, 0, 0, {}};
                ::store(job, row, std::min(PANEL, width - row), k, std::min(PANEL, hidden - k),
                        sums + (i * steps + s) * BLOCK, PANEL);
            }
    }

    // The gradient by logits of one panel, 32 of the vocabulary after 32, `apart` bytes.
    void share(i64 panel, i64 first, i64 count, const char* left, char* shares, i64 apart) {
        alignas(64) float reference[PANEL], factor[PANEL];
        i64 begin = panel * PANEL;
        for (i64 i = 0; i < PANEL; i++) {
            reference[i] = begin + i < rows ? normalisers[begin + i] : 0;
            factor[i] = begin + i < rows ? factors[begin + i] : 0;
        }
        auto pair = [&](i64 i, const float* logits, i64 n) {
            for (i64 v = 2 * n; v < 2 * n + 2; v++) {
                __m512 x[2];
#pragma GCC unroll 2
                for (i64 side = 0; side < 2; side++) {
                    i64 at = side * TILE;
                    x[side] = exponential(logits + v * PANEL + at, _mm512_load_ps(reference + at));
                    x[side] = _mm512_mul_ps(_mm512_sub_ps(x[side], _mm512_set1_ps(rest)), _mm512_load_ps(factor + at));
                }
                _mm512_store_si512(shares + i * apart + v * 64, (__m512i)_mm512_cvtne2ps_pbh(x[1], x[0]));
            }
        };
        auto done = [&](i64 i) {
            for (i64 m = 0, row = (first + i) * PANEL; m < PANEL; m++) {
                i64 v = target(begin + m) - row;
                if (v >= 0 && v < PANEL) put((bf16*)(shares + i * apart + v * 64) + m, own[begin + m] * factor[m]);
            }
        };
        each(panel, left, count, [](i64, float*) {}, pair, done);
    }
};

void gradient_of(OfWeight& head, int threads) {
    Shapes shapes;
    i64 most = head.most();
#pragma omp parallel num_threads(threads)
    {
        _tile_loadconfig(&shapes);
#pragma omp for schedule(static)
        for (i64 p = 0; p < head.panels; p++) head.begin(p);
#pragma omp for schedule(dynamic)
        for (i64 first = 0; first < head.parts; first += most) head.pass(first, std::min(most, head.parts - first));
        _tile_release();
    }
}
}  // namespace

// states (rows, hidden), weight (width, hidden), targets (rows): of each row its loss, its normaliser to base 2, its
// largest logit's place, and (or null) the loss' gradient by its states.
EXPORT void head_losses(const void* states, const void* weight, i64 rows, i64 width, i64 hidden, const i64* targets,
                        float* losses, float* normalisers, i64* best, void* of_states, int threads) {
    if (of_states) {
        Losses<true> head{{(const bf16*)states, (const bf16*)weight, rows, width, hidden, targets}};
        losses_of(head, losses, normalisers, best, (bf16*)of_states, threads);
    } else {
        Losses<false> head{{(const bf16*)states, (const bf16*)weight, rows, width, hidden, targets}};
        losses_of(head, losses, normalisers, best, nullptr, threads);
    }
}

// of_weight (width, hidden), of losses that have the gradients `factors` (rows).
EXPORT void head_of_weight(const void* states, const void* weight, i64 rows, i64 width, i64 hidden, const i64* targets,
                           const float* normalisers, const float* own, const float* factors, float rest,
                           void* of_weight, int threads) {
    OfWeight head{{(const bf16*)states, (const bf16*)weight, rows, width, hidden, targets},
                  normalisers, own, factors, rest, (bf16*)of_weight};
    gradient_of(head, threads);
}
#endif
