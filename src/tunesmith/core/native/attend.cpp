// Attention over pieces of rows by AMX tiles, softmax(scale * q k^T) v as in arXiv:1706.03762, 3.2.1: a head's keys and
// values of one piece stay in the cache, scores are float and leave it neither way. What the backward pass needs is computed
// again (arXiv:2205.14135, 3.1), so no shares are kept: only what they are computed from in one pass over the scores.
#include "tiles.h"

#ifdef HAS_TILES
#include <omp.h>

// Queries: `queries` tokens from `token` on, the first at place `before` of its path; they see at most the first `keys` of
// the tokens from `path` on (of an array of tokens).
struct Piece {
    i64 token, queries, before, path, keys;
};

// Queries, keys and values (tokens, heads * dim), rows apart by the strides; cos and sin (tokens, dim), or null. norms
// (2, heads, norm_row), or null: of each token the highest of its scores times log2(e), and one by the sum of their powers
// above it.
struct Heads {
    const bf16 *q, *k, *v;
    i64 q_row, k_row, v_row;
    const float *cos, *sin;
    const i64* tokens;
    i64 key_heads, shared, dim, causal, window;
    float scale;
    float* norms;
    i64 norm_row;
    float* norms_of(i64 head, i64 token) const { return norms + head * norm_row + token; }
    i64 heads() const { return key_heads * shared; }
};

// What the backward pass is given and makes: grad, out and of_q as q, of_k and of_v as k.
struct Back {
    const bf16 *grad, *out;
    i64 grad_row, out_row;
    bf16 *of_q, *of_k, *of_v;
    i64 of_q_row, of_k_row, of_v_row;
};

struct Range {
    i64 first, last;
};

const i64 AHEAD = 8;   // rows that are asked for before they are read
const i64 PART = 64;   // queries whose shares are held at a time on the way back
const i64 APART = 32;  // elements after each row of shares and scores, so that rows do not compete for the same lines

static inline i64 whole(i64 n) { return (n + PANEL - 1) / PANEL * PANEL; }

// A thread's own copies of what one head of a piece needs.
static thread_local std::vector<char> rooms[16];
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
        __m512 a = _mm512_mul_ps(by, _mm512_loadu_ps(from + j)), b = _mm512_mul_ps(by, _mm512_loadu_ps(from + j + half));
        if (c) {
            __m512 of_a = _mm512_mul_ps(b, _mm512_loadu_ps(s + j + half)), of_b = _mm512_mul_ps(a, _mm512_loadu_ps(s + j));
            a = _mm512_fmadd_ps(a, _mm512_loadu_ps(c + j), of_a);
            b = _mm512_fmsub_ps(b, _mm512_loadu_ps(c + j + half), of_b);
        }
        narrow16(to + j, a);
        narrow16(to + j + half, b);
    }
}

// Asks for one head's elements before they are read, or written.
static inline void ask(const bf16* x, i64 dim) {
    for (i64 j = 0; j < dim; j += DEEP) _mm_prefetch((const char*)(x + j), _MM_HINT_T0);
}
static inline void ask_to_write(const bf16* x, i64 dim) {
    for (i64 j = 0; j < dim; j += DEEP) asm volatile("prefetchw %0" : : "m"(x[j]));
}

// One head of `count` tokens, turned to their positions; up to `padded` rows of zeros. token(i): the i-th one.
template <class F>
static void take(const bf16* x, i64 row, F token, i64 count, i64 padded, const float* cos, const float* sin, i64 dim, bf16* to) {
    for (i64 i = 0; i < count; i++, to += dim) {
        i64 t = token(i);
        if (i + AHEAD < count) ask(x + token(i + AHEAD) * row, dim);
        if (cos)
            turn_head(x + t * row, cos + t * dim, sin + t * dim, to, dim / 2);
        else
            memcpy((void*)to, (const void*)(x + t * row), dim * sizeof(bf16));
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
static inline void times(const bf16* a, i64 row, const char* b, i64 deep, i64 steps, i64 panels, float* sums, i64 apart) {
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

const float LOG2_E = 1.44269504088896341f;

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
    return {h * at.shared + i % at.shared, l, std::min(PANEL, piece.queries - l), piece.token + l, panels_seen(at, piece, l)};
}

// Shares of a block but for their norms, from scores of the panels that it sees. meanwhile(r): what else to begin after
// a row.
template <class F>
static inline void powers(const Heads& at, const Piece& piece, const Block& of, const float* scores, i64 apart, bf16* to,
                          i64 to_apart, float* highest, float* share, F meanwhile) {
    __m512 by = _mm512_set1_ps(at.scale * LOG2_E), of_row[PANEL];
    for (i64 r = 0; r < of.real; r++) {
        Range sees = keys_seen(at, piece, of.l + r);
        __m512 most = _mm512_set1_ps(sees.first < sees.last ? -INFINITY : 0), zero = _mm512_setzero_ps();
        for (i64 j = of.begin(); j < of.end(); j += TILE)
            most = _mm512_max_ps(most, scaled(scores + r * apart + j, j, sees, by, zero));
        of_row[r] = most;
    }
    for (i64 r = 0; r < of.real; r += TILE)
        _mm512_storeu_ps(highest + r, folded(of_row + r, [](__m512 a, __m512 b) { return _mm512_max_ps(a, b); }));
    for (i64 r = 0; r < of.real; r++, scores += apart, to += to_apart) {
        Range sees = keys_seen(at, piece, of.l + r);
        __m512 most = _mm512_set1_ps(highest[r]), sum = _mm512_setzero_ps();
        for (i64 j = of.begin(); j < of.end(); j += PANEL) {
            __m512 low = power(scaled(scores + j, j, sees, by, most));
            __m512 high = power(scaled(scores + j + TILE, j + TILE, sees, by, most));
            sum = _mm512_add_ps(sum, _mm512_add_ps(low, high));
            _mm512_storeu_si512(to + j, narrow(low, high));
        }
        of_row[r] = sum;
        meanwhile(r);
    }
    for (i64 r = 0; r < of.real; r += TILE) {
        __m512 sum = folded(of_row + r, [](__m512 a, __m512 b) { return _mm512_add_ps(a, b); });
        __mmask16 none = _mm512_cmp_ps_mask(sum, _mm512_setzero_ps(), _CMP_EQ_OQ);  // no key is seen
        _mm512_storeu_ps(share + r, _mm512_mask_mov_ps(_mm512_div_ps(_mm512_set1_ps(1.0f), sum), none, sum));
    }
}

static void forward(const Heads& at, const Piece& piece, i64 h, bf16* out, i64 out_row) {
    i64 dim = at.dim, wide = whole(piece.keys), apart = wide + APART, deep = dim / DEEP;
    auto key = [&](i64 i) { return at.tokens[piece.path + i]; };
    bf16 *k = hold<bf16>(0, wide * dim), *v = hold<bf16>(1, wide * dim), *q = hold<bf16>(4, PANEL * dim);
    take(at.k + h * dim, at.k_row, key, piece.keys, wide, at.cos, at.sin, dim, k);
    take(at.v + h * dim, at.v_row, key, piece.keys, wide, nullptr, nullptr, dim, v);
    const char *by_key = laid(2, k, dim, wide, true), *by_value = laid(3, v, wide, dim, false);
    float *scores = hold<float>(6, PANEL * apart), *sums = hold<float>(7, PANEL * dim), highest[PANEL], share[PANEL];
    bf16* p = (bf16*)scores;
    i64 count = whole(piece.queries) / PANEL * at.shared;
    for (i64 i = 0; i < count; i++) {
        Block now = block_of(at, piece, h, i), next = block_of(at, piece, h, std::min(i + 1, count - 1));
        bf16* to = out + now.first * out_row + now.head * dim;
        take(at.q + now.head * dim, at.q_row, [&](i64 r) { return now.first + r; }, now.real, PANEL, at.cos, at.sin, dim, q);
        times(q, dim, by_key + now.begin() * dim * 2, deep, deep, now.count(), scores + now.begin(), apart);
        powers(at, piece, now, scores, apart, p, 2 * apart, highest, share, [&](i64 r) {
            if (r < next.real) ask(at.q + (next.first + r) * at.q_row + next.head * dim, dim);
            ask_to_write(to + r * out_row, dim);
        });
        times(p + now.begin(), 2 * apart, by_value + now.panels.first * 2 * TILE_BYTES, wide / DEEP, now.count(), deep, sums, dim);
        for (i64 r = 0; r < now.real; r++) write_head(sums + r * dim, share[r], nullptr, nullptr, to + r * out_row, dim);
        if (!at.norms) continue;
        memcpy(at.norms_of(now.head, now.first), highest, now.real * sizeof(float));
        memcpy(at.norms_of(at.heads() + now.head, now.first), share, now.real * sizeof(float));
    }
}

// What the queries of a part hold, `count` blocks of 32 of a head each: shares and gradients of scores as second operands,
// a panel of keys after another; queries and gradients of outputs across (dim, across).
struct Part {
    Range panels;
    i64 count, across;
    char *p, *s;
    bf16 *q, *g;
    char* tiles(char* of, i64 panel, i64 block) const {
        return of + ((panel - panels.first) * count + block) * 2 * TILE_BYTES;
    }
};

// Of each query of a block what it sees, its norm, and its shares' sum of their gradients.
struct Queries {
    Range sees[PANEL];
    float highest[PANEL], share[PANEL], dot[PANEL];
};

struct Line {
    __m512i share, of_score;
};

// Shares of one panel of keys, from `j` on, and the gradients of their scores but for the scale. EDGE: the query may not
// see all of them.
template <bool EDGE>
static inline Line line(const Queries& of, i64 r, const float* scores, const float* of_p, i64 j, __m512 scale) {
    Range sees = EDGE ? of.sees[r] : Range{j, j + PANEL};
    __m512 most = _mm512_set1_ps(of.highest[r]), norm = _mm512_set1_ps(of.share[r]), dot = _mm512_set1_ps(of.dot[r]);
    scores += r * PANEL, of_p += r * PANEL;
    __m512 low = _mm512_mul_ps(norm, power(scaled(scores, j, sees, scale, most)));
    __m512 high = _mm512_mul_ps(norm, power(scaled(scores + TILE, j + TILE, sees, scale, most)));
    __m512 of_low = _mm512_mul_ps(low, _mm512_sub_ps(_mm512_loadu_ps(of_p), dot));
    __m512 of_high = _mm512_mul_ps(high, _mm512_sub_ps(_mm512_loadu_ps(of_p + TILE), dot));
    return {narrow(low, high), narrow(of_low, of_high)};
}

// A block's shares of a panel and the gradients of its scores as second operands, these also as they lie, rows apart.
template <bool EDGE>
static inline void put_panel(const Queries& of, const float* scores, const float* of_p, i64 j, float scale, char* p, char* s,
                             bf16* lying, i64 apart) {
    __m512 by = _mm512_set1_ps(scale);
    for (i64 r = 0; r < PANEL; r += 2, p += 64, s += 64, lying += 2 * apart) {
        Line even = line<EDGE>(of, r, scores, of_p, j, by), odd = line<EDGE>(of, r + 1, scores, of_p, j, by);
        interleave(even.share, odd.share, p);
        interleave(even.of_score, odd.of_score, s);
        _mm512_storeu_si512(lying, even.of_score);
        _mm512_storeu_si512(lying + apart, odd.of_score);
    }
}

// 32 rows of dim, transposed: (dim, 32), rows apart.
static inline void across(const bf16* x, i64 dim, i64 apart, bf16* to) {
    __m512i r[16];
    for (i64 d = 0; d < dim; d += TILE) {
        read_across(x + d, dim, TILE, PANEL, r);
        transpose(r);
        write_tile(to + d * apart, apart * 2, r);
    }
}

// Keys and values of one head of a piece as second operands: by key, by value, and keys as they lie.
struct Sides {
    const char *by_key, *by_value, *keys;
    i64 wide, apart;
};

static inline void fill(const Heads& at, const Back& back, const Piece& piece, const Block& block, const bf16* g, Queries& of) {
    __m512 dots[PANEL];
    for (i64 r = 0; r < PANEL; r++) {
        i64 t = block.first + r;
        bool real = r < block.real;
        dots[r] = _mm512_setzero_ps();
        for (i64 j = 0; real && j < at.dim; j += DEEP) {
            __m512i a = _mm512_loadu_si512(g + r * at.dim + j), b;
            b = _mm512_loadu_si512(back.out + t * back.out_row + block.head * at.dim + j);
            dots[r] = _mm512_dpbf16_ps(dots[r], (__m512bh)a, (__m512bh)b);
        }
        of.sees[r] = real ? keys_seen(at, piece, block.l + r) : Range{0, 0};
        of.highest[r] = real ? *at.norms_of(block.head, t) : INFINITY;
        of.share[r] = real ? *at.norms_of(at.heads() + block.head, t) : 0;
    }
    for (i64 r = 0; r < PANEL; r += TILE)
        _mm512_storeu_ps(of.dot + r, folded(dots + r, [](__m512 a, __m512 b) { return _mm512_add_ps(a, b); }));
}

// What the block after this one reads, and row r of what this one writes.
static inline void ask_ahead(const Heads& at, const Back& back, const Block& now, const Block& next, i64 r) {
    if (r < next.real) {
        i64 t = next.first + r, head = next.head * at.dim;
        ask(at.q + t * at.q_row + head, at.dim);
        ask(back.grad + t * back.grad_row + head, at.dim);
        ask(back.out + t * back.out_row + head, at.dim);
    }
    if (r < now.real) ask_to_write(back.of_q + (now.first + r) * back.of_q_row + now.head * at.dim, at.dim);
}

// A block's shares and gradients into a part's tiles, where it is the m-th; its of_q is written. Of one panel of keys
// products are under way while of the one before shares are made.
static void back_block(const Heads& at, const Back& back, const Piece& piece, const Sides& sides, const Part& part,
                       const Block& now, const Block& next, i64 m) {
    i64 dim = at.dim, deep = dim / DEEP, apart = sides.apart, first = now.panels.first, last = now.panels.last, asked = 0;
    bf16 *q = hold<bf16>(4, 2 * PANEL * dim), *g = q + PANEL * dim, *s = hold<bf16>(5, PANEL * apart);
    float *both = hold<float>(6, 4 * PANEL * PANEL), *sums = hold<float>(7, PANEL * dim);
    auto query = [&](i64 r) { return now.first + r; };
    Queries of;
    take(at.q + now.head * dim, at.q_row, query, now.real, PANEL, at.cos, at.sin, dim, q);
    take(back.grad + now.head * dim, back.grad_row, query, now.real, PANEL, nullptr, nullptr, dim, g);
    fill(at, back, piece, now, g, of);
    across(q, dim, part.across, part.q + m * PANEL);
    across(g, dim, part.across, part.g + m * PANEL);
    for (i64 n = first; n <= last; n++) {
        float *made = both + n % 2 * 2 * PANEL * PANEL, *before = both + (n + 1) % 2 * 2 * PANEL * PANEL;
        if (n < last) {
            times(q, dim, sides.by_key + n * PANEL * dim * 2, deep, deep, 1, made, PANEL);
            times(g, dim, sides.by_value + n * PANEL * dim * 2, deep, deep, 1, made + PANEL * PANEL, PANEL);
        }
        if (n == first) continue;
        i64 j = (n - 1) * PANEL;
        bool all = of.sees[now.real - 1].first <= j && j + PANEL <= of.sees[0].last;
        auto put = all ? put_panel<false> : put_panel<true>;
        put(of, before, before + PANEL * PANEL, j, at.scale * LOG2_E, part.tiles(part.p, n - 1, m), part.tiles(part.s, n - 1, m),
            s + j, apart);
        for (; asked < (n - first) * PANEL / (last - first); asked++) ask_ahead(at, back, now, next, asked);
    }
    times(s + now.begin(), apart, sides.keys + first * 2 * TILE_BYTES, sides.wide / DEEP, last - first, deep, sums, dim);
    for (i64 r = 0; r < now.real; r++) {
        i64 t = now.first + r;
        const float *cos = at.cos ? at.cos + t * dim : nullptr, *sin = at.cos ? at.sin + t * dim : nullptr;
        write_head(sums + r * dim, at.scale, cos, sin, back.of_q + t * back.of_q_row + now.head * dim, dim);
    }
}

// sums (dim, keys), rows apart, (+)= what a part's queries or gradients of outputs are times its tiles; added to in the
// panels before `begun`.
static void add_part(const Heads& at, const Piece& piece, const Part& part, i64 l, i64 begun, const bf16* left, char* tiles,
                     float* sums, i64 apart) {
    for (i64 n = part.panels.first; n < part.panels.last; n++) {
        i64 first = part.count, last = 0;  // blocks that see the panel
        for (i64 m = 0; m < part.count; m++) {
            Range sees = panels_seen(at, piece, l + m / at.shared * PANEL);
            if (sees.first <= n && n < sees.last) first = std::min(first, m), last = m + 1;
        }
        Chunk chunk{nullptr, 0, 0, last - first};
        const char* right = part.tiles(tiles, n, first);
        for (i64 d = 0; d < at.dim; d += PANEL) {
            Lines lines{(const char*)(left + d * part.across + first * PANEL), part.across * 2};
            multiply<2, 2>(&lines, &right, &chunk, 1, sums + d * apart + n * PANEL, apart, n >= begun);
        }
    }
}

// of (tokens from `base` on, dim) += sums (dim, keys) of the panels, of each key in its token's place.
static void add_turned(const Heads& at, const Piece& piece, Range panels, const float* sums, i64 apart, i64 base, float* of) {
    __m512i r[16];
    i64 end = std::min(panels.last * PANEL, piece.keys);
    for (i64 j = panels.first * PANEL; j < end; j += TILE)
        for (i64 d = 0; d < at.dim; d += TILE) {
            for (i64 i = 0; i < TILE; i++) r[i] = _mm512_loadu_si512(sums + (d + i) * apart + j);
            transpose(r);
            for (i64 i = 0; i < std::min(TILE, end - j); i++) {
                float* to = of + (at.tokens[piece.path + j + i] - base) * at.dim + d;
                _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), (__m512)r[i]));
            }
        }
}

// A piece's part of of_k and of_v (tokens from `base` on, dim).
static void backward(const Heads& at, const Back& back, const Piece& piece, i64 h, i64 base, float* of_k, float* of_v) {
    i64 dim = at.dim, wide = whole(piece.keys), apart = wide + APART;
    auto key = [&](i64 i) { return at.tokens[piece.path + i]; };
    bf16 *k = hold<bf16>(0, wide * dim), *v = hold<bf16>(1, wide * dim);
    take(at.k + h * dim, at.k_row, key, piece.keys, wide, at.cos, at.sin, dim, k);
    take(at.v + h * dim, at.v_row, key, piece.keys, wide, nullptr, nullptr, dim, v);
    Sides sides{laid(2, k, dim, wide, true), laid(3, v, dim, wide, true), laid(8, k, wide, dim, false), wide, apart};
    float *k_sums = hold<float>(9, 2 * dim * apart), *v_sums = k_sums + dim * apart;
    Range written = panels_seen(at, piece, 0);
    written.last = written.first;
    for (i64 l = 0; l < piece.queries; l += PART) {
        i64 blocks = (std::min(PART, piece.queries - l) + PANEL - 1) / PANEL, count = blocks * at.shared;
        Part part{{panels_seen(at, piece, l).first, panels_seen(at, piece, l + (blocks - 1) * PANEL).last},
                  count, count * PANEL + APART, nullptr, nullptr, nullptr, nullptr};
        i64 tiles = (part.panels.last - part.panels.first) * count * 2 * TILE_BYTES;
        part.p = hold<char>(10, 2 * tiles), part.s = part.p + tiles;
        part.q = hold<bf16>(11, 2 * dim * part.across), part.g = part.q + dim * part.across;
        for (i64 m = 0; m < count; m++) {
            i64 i = l / PANEL * at.shared + m, next = std::min(i + 1, whole(piece.queries) / PANEL * at.shared - 1);
            back_block(at, back, piece, sides, part, block_of(at, piece, h, i), block_of(at, piece, h, next), m);
        }
        add_part(at, piece, part, l, written.last, part.q, part.s, k_sums, apart);
        add_part(at, piece, part, l, written.last, part.g, part.p, v_sums, apart);
        written.last = part.panels.last;
    }
    add_turned(at, piece, written, k_sums, apart, base, of_k);
    add_turned(at, piece, written, v_sums, apart, base, of_v);
}

// The pieces of a tree, whose tokens are no other's: what each token's key and value got is written at the end.
static void back_tree(const Heads& at, const Back& back, const Piece* from, const Piece* to, i64 h) {
    i64 base = from->token, end = 0, dim = at.dim;
    for (const Piece* piece = from; piece < to; piece++) {
        base = std::min(base, piece->token);
        end = std::max(end, piece->token + piece->queries);
    }
    float *of_k = hold<float>(12, 2 * (end - base) * dim), *of_v = of_k + (end - base) * dim;
    memset(of_k, 0, 2 * (end - base) * dim * sizeof(float));
    for (const Piece* piece = from; piece < to; piece++) backward(at, back, *piece, h, base, of_k, of_v);
    for (const Piece* piece = from; piece < to; piece++)
        for (i64 t = piece->token; t < piece->token + piece->queries; t++) {
            const float *cos = at.cos ? at.cos + t * dim : nullptr, *sin = at.cos ? at.sin + t * dim : nullptr;
            const float *k = of_k + (t - base) * dim, *v = of_v + (t - base) * dim;
            if (t + AHEAD < piece->token + piece->queries) {
                ask_to_write(back.of_k + (t + AHEAD) * back.of_k_row + h * dim, dim);
                ask_to_write(back.of_v + (t + AHEAD) * back.of_v_row + h * dim, dim);
            }
            write_head(k, at.scale, cos, sin, back.of_k + t * back.of_k_row + h * dim, dim);
            write_head(v, 1.0f, nullptr, nullptr, back.of_v + t * back.of_v_row + h * dim, dim);
        }
}

// Pieces of one unit share tokens with no other unit, so a thread that takes a unit's head writes alone, in one order.
template <class F> static void each(const i64* units, i64 count, i64 key_heads, int threads, F work) {
    Shapes shapes;
#pragma omp parallel num_threads(threads)
    {
        _tile_loadconfig(&shapes);
#pragma omp for collapse(2) schedule(dynamic, 1)
        for (i64 u = 0; u < count; u++)
            for (i64 h = 0; h < key_heads; h++) work(units[u], units[u + 1], h);
        _tile_release();
    }
}

#define ATTENTION                                                                                                         \
    const void *q, i64 q_row, const void *k, i64 k_row, const void *v, i64 v_row, const float *cos, const float *sin,     \
        const Piece *pieces, const i64 *tokens, const i64 *units, i64 count, i64 key_heads, i64 shared, i64 dim,          \
        i64 causal, i64 window, float scale, void *out, i64 out_row, float *norms, i64 norm_row
#define HEADS                                                                                                       \
    {(const bf16*)q, (const bf16*)k, (const bf16*)v, q_row, k_row, v_row, cos, sin, tokens, key_heads, shared, dim, \
     causal, window, scale, norms, norm_row}

// pieces (P, 5): see Piece. units (count + 1): where the pieces of each unit begin. dim: a multiple of 32. out as q.
EXPORT void attend_tiles(ATTENTION, int threads) {
    Heads at HEADS;
    each(units, count, key_heads, threads, [&](i64 from, i64 to, i64 h) {
        for (i64 i = from; i < to; i++) forward(at, pieces[i], h, (bf16*)out, out_row);
    });
}

// of_q as q, of_k as k, of_v as v.
EXPORT void attend_tiles_backward(ATTENTION, const void* grad, i64 grad_row, void* of_q, i64 of_q_row, void* of_k,
                                  i64 of_k_row, void* of_v, i64 of_v_row, int threads) {
    Heads at HEADS;
    Back back{(const bf16*)grad, (const bf16*)out, grad_row, out_row, (bf16*)of_q, (bf16*)of_k, (bf16*)of_v,
              of_q_row, of_k_row, of_v_row};
    each(units, count, key_heads, threads,
         [&](i64 from, i64 to, i64 h) { back_tree(at, back, pieces + from, pieces + to, h); });
}
#endif
