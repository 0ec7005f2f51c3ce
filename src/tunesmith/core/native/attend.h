// Attention over pieces of rows by AMX tiles, softmax(scale * q k^T) v as in arXiv:1706.03762, 3.2.1: a head's keys and
// values of one piece stay in the cache, scores are float and leave it neither way. What the backward pass needs is
// computed again (arXiv:2205.14135, 3.1), so no shares are kept: only what they are computed from in one pass over the
// scores.
#pragma once
#include "philox.h"
#include "tiles.h"
#include "vectors.h"

#ifdef HAS_TILES
#include <omp.h>

// Queries: `queries` tokens from `token` on, the first at place `before` of its path; they see at most the first `keys`
// of the tokens from `path` on (of an array of tokens).
struct Piece {
    i64 token, queries, before, path, keys;
};

// Queries, keys and values (tokens, heads * dim), rows apart by the strides; cos and sin (tokens, dim), or null. norms
// (2, heads, norm_row), or null: of each token the highest of its scores times log2(e), and one by the sum of their
// powers above it.
struct Heads {
    const bf16 *q, *k, *v;
    i64 q_row, k_row, v_row;
    const float *cos, *sin;
    const i64* tokens;
    i64 key_heads, shared, dim, causal, window;
    float scale;
    float* norms;
    i64 norm_row;
    uint64_t seed;
    float dropout;  // of the shares
    float kept() const { return kept_by(dropout); }
    float* norms_of(i64 head, i64 token) const { return norms + head * norm_row + token; }
    i64 heads() const { return key_heads * shared; }
};

struct Range {
    i64 first, last;
};

const i64 AHEAD = 8;   // rows that are asked for before they are read
const i64 APART = 32;  // elements after each row of shares and scores, so that rows do not compete for the same lines

static inline i64 whole(i64 n) { return (n + PANEL - 1) / PANEL * PANEL; }

// A thread's own copies of what one head of a piece needs.
static thread_local std::vector<char> rooms[13];
template <class T> static T* hold(int which, i64 n) { return (T*)room(rooms[which], n * sizeof(T)); }

static inline __m512i narrow(__m512 low, __m512 high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }
static inline void narrow16(bf16* to, __m512 x) { _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh(x)); }

// 2^x: its whole part goes to the exponent, of the rest in [0, 1) it is a polynomial, 3e-6 relative.
static inline __m512 power(__m512 x) {
    __m512 rest = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF), p = _mm512_set1_ps(1.353416115e-2f);
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(5.201147832e-2f));
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(2.414427425e-1f));
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(6.930038384e-1f));
    p = _mm512_fmadd_ps(p, rest, _mm512_set1_ps(1.000002593f));
    return _mm512_scalef_ps(p, x);
}

// One head turned to its position (see turn).
static inline void turn_head(const bf16* from, const float* c, const float* s, bf16* to, i64 half) {
    for (i64 j = 0; j < half; j += TILE, c += TILE, s += TILE) {
        __m512 a = widened(from + j), b = widened(from + j + half);
        __m512 of_a = _mm512_mul_ps(b, _mm512_loadu_ps(s)), of_b = _mm512_mul_ps(a, _mm512_loadu_ps(s + half));
        narrow16(to + j, _mm512_fmsub_ps(a, _mm512_loadu_ps(c), of_a));
        narrow16(to + j + half, _mm512_fmadd_ps(b, _mm512_loadu_ps(c + half), of_b));
    }
}

// One head times `scale`, turned back from its position (see turn_back) where cosines are given.
static inline void write_head(const float* from, float scale, const float* c, const float* s, bf16* to, i64 dim) {
    __m512 by = _mm512_set1_ps(scale);
    i64 half = dim / 2;
    for (i64 j = 0; j < half; j += TILE) {
        __m512 a = _mm512_mul_ps(by, _mm512_loadu_ps(from + j));
        __m512 b = _mm512_mul_ps(by, _mm512_loadu_ps(from + j + half));
        if (c) {
            __m512 of_a = _mm512_mul_ps(b, _mm512_loadu_ps(s + j + half));
            __m512 of_b = _mm512_mul_ps(a, _mm512_loadu_ps(s + j));
            a = _mm512_fmadd_ps(a, _mm512_loadu_ps(c + j), of_a);
            b = _mm512_fmsub_ps(b, _mm512_loadu_ps(c + j + half), of_b);
        }
        narrow16(to + j, a);
        narrow16(to + j + half, b);
    }
}

// Asks for one head's elements before they are read, or written (compilers drop a loop of _mm_prefetch for that).
static inline void ask(const bf16* x, i64 dim) {
    for (i64 j = 0; j < dim; j += DEEP) _mm_prefetch((const char*)(x + j), _MM_HINT_T0);
}
static inline void ask_to_write(const bf16* x, i64 dim) {
    for (i64 j = 0; j < dim; j += DEEP) asm volatile("prefetchw %0" : : "m"(x[j]));
}

// One head of `count` tokens, turned to their positions; up to `padded` rows of zeros. token(i): the i-th one.
template <class F>
static void take(const bf16* x, i64 row, F token, i64 count, i64 padded, const float* cos, const float* sin, i64 dim,
                 bf16* to) {
    for (i64 i = 0; i < count; i++, to += dim) {
        i64 t = token(i);
        if (i + AHEAD < count) ask(x + token(i + AHEAD) * row, dim);
        if (cos)
            turn_head(x + t * row, cos + t * dim, sin + t * dim, to, dim / 2);
        else
            for (i64 j = 0; j < dim; j += DEEP) _mm512_storeu_si512(to + j, _mm512_loadu_si512(x + t * row + j));
    }
    memset((void*)to, 0, (padded - count) * dim * sizeof(bf16));
}

// x (inner, columns) as a second operand; turned: it lies as (columns, inner).
static char* laid(int which, const bf16* x, i64 inner, i64 columns, bool turned) {
    Term term{nullptr, x, 0, 0, 0, turned ? 1 : columns, turned ? inner : 1, 0, inner};
    char* to = hold<char>(which, inner * columns * 2);
    pack_b({&term, 0, inner, inner / DEEP}, 0, columns, to);
    return to;
}

// sums (32, panels * 32) = a (32, steps * 32) times what is laid, of which a panel is `deep` steps.
static inline void times(const bf16* a, i64 row, const char* b, i64 deep, i64 steps, i64 panels, float* sums,
                         i64 apart) {
    Lines left{(const char*)a, row * 2};
    Chunk chunk{nullptr, 0, 0, steps};
    for (i64 p = 0; p < panels; p++) {
        const char* right = b + p * deep * 2 * TILE_BYTES;
        multiply<2, 2>(&left, &right, &chunk, 1, sums + p * PANEL, apart, true);
    }
}

// The panels of keys that any of 32 queries from `l` on sees.
static inline Range panels_seen(const Heads& at, const Piece& piece, i64 l) {
    i64 first, last, none, place = piece.before + l, end = piece.before + std::min(l + PANEL, piece.queries);
    seen(place, piece.keys, piece.keys, at.causal, at.window, &first, &none);
    seen(end - 1, piece.keys, piece.keys, at.causal, at.window, &none, &last);
    return {first / PANEL, std::max(first, whole(last)) / PANEL};
}

// A query's scores of 16 keys from `j` on, times `scale`, less `minus`; -inf for those that it does not see.
static inline __m512 scaled(const float* scores, i64 j, Range sees, __m512 scale, __m512 minus) {
    __m512 x = _mm512_fmsub_ps(_mm512_loadu_ps(scores), scale, minus);
    if (j >= sees.first && j + TILE <= sees.last) return x;
    auto before = [&](i64 key) { return key <= j ? 0u : key >= j + TILE ? 0xffffu : (1u << (key - j)) - 1; };
    return _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), before(sees.last) & ~before(sees.first), x);
}

static inline Range keys_seen(const Heads& at, const Piece& piece, i64 query) {
    Range sees;
    seen(piece.before + query, piece.keys, piece.keys, at.causal, at.window, &sees.first, &sees.last);
    return sees;
}

// Of 16 vectors each one's sum or highest.
template <class F> static inline __m512 folded(const __m512* of, F both) {
    __m512i r[16];
    for (i64 i = 0; i < TILE; i++) r[i] = (__m512i)of[i];
    transpose(r);
    for (i64 n = TILE / 2; n; n /= 2)
        for (i64 i = 0; i < n; i++) r[i] = (__m512i)both((__m512)r[i], (__m512)r[i + n]);
    return (__m512)r[0];
}


// 32 queries of a head.
struct Block {
    i64 head, l, real, first;  // the first one's place in the piece, and token
    Range panels;              // that any of them sees
    i64 begin() const { return panels.first * PANEL; }
    i64 end() const { return panels.last * PANEL; }
    i64 count() const { return panels.last - panels.first; }
};

// The i-th block of a piece: the heads that share a key head one after another.
static inline Block block_of(const Heads& at, const Piece& piece, i64 h, i64 i) {
    i64 l = i / at.shared * PANEL;
    i64 real = std::min(PANEL, piece.queries - l);
    return {h * at.shared + i % at.shared, l, real, piece.token + l, panels_seen(at, piece, l)};
}

// Which shares of a block's panel of keys from `j` on are kept, a row's 32 in a word: the same each time it is asked.
// Eight queries get the halves of a counter's four words: four the lower ones, then four the upper ones.
static inline void keep(const Heads& at, const Piece& piece, const Block& of, i64 j, uint32_t* rows) {
    const __m512i limit = _mm512_set1_epi32(int(dropped_below(at.dropout))), low = _mm512_set1_epi32(0xffff);
    for (i64 r = 0; r < of.real; r += 8)
        for (i64 side = 0; side < PANEL && j + side < piece.keys; side += TILE) {
            __m512i words[4] = {_mm512_add_epi32(_mm512_set1_epi32(int(j + side)), counting()),
                                _mm512_set1_epi32(int(of.l + r)), _mm512_set1_epi32(int(of.head)),
                                _mm512_set1_epi32(int(piece.token))};
            philox(words, at.seed);
            for (i64 q = 0; q < 8; q++) {
                __m512i half = q < 4 ? _mm512_and_si512(words[q], low) : _mm512_srli_epi32(words[q - 4], 16);
                uint32_t found = _mm512_cmpge_epu32_mask(half, limit);
                rows[r + q] = side ? rows[r + q] | found << TILE : found;
            }
        }
}

// Pieces of one unit share tokens with no other unit, so a thread that takes a unit's head writes alone, in one order.
template <class F> static void each(const i64* units, i64 count, i64 key_heads, int threads, F work) {
    Shapes shapes;
    const i64 chunk = count >= 8 * threads ? key_heads : 1;  // a row's heads lie side by side
#pragma omp parallel num_threads(threads)
    {
        unsigned mode = _mm_getcsr();
        _mm_setcsr(mode | _MM_FLUSH_ZERO_ON);  // shares below 2^-126 would take a hundred times as long as zero
        _tile_loadconfig(&shapes);
#pragma omp for collapse(2) schedule(dynamic, chunk)
        for (i64 u = 0; u < count; u++)
            for (i64 h = 0; h < key_heads; h++) work(units[u], units[u + 1], h);
        _tile_release();
        _mm_setcsr(mode);
    }
}

#define ATTENTION                                                                                                    \
    const void *q, i64 q_row, const void *k, i64 k_row, const void *v, i64 v_row, const float *cos, const float *sin, \
        const Piece *pieces, const i64 *tokens, const i64 *units, i64 count, i64 key_heads, i64 shared, i64 dim,     \
        i64 causal, i64 window, float scale, i64 seed, float dropout, void *out, i64 out_row, float *norms, i64 norm_row
#define HEADS                                                                                                       \
    {(const bf16*)q, (const bf16*)k, (const bf16*)v, q_row, k_row, v_row, cos, sin, tokens, key_heads, shared, dim, \
     causal, window, scale, norms, norm_row, uint64_t(seed), dropout}
#endif
