// The way back of attention over pieces of rows by AMX tiles (see attend.h): shares and gradients of scores are made a
// panel of keys at a time, and held for some queries, until keys and values get their part.
#include "attend.h"

#ifdef HAS_TILES
const i64 PART = 64;  // queries whose shares are held at a time

// What the backward pass is given and makes: grad, out and of_q as q, of_k and of_v as k.
struct Back {
    const bf16 *grad, *out;
    i64 grad_row, out_row;
    bf16 *of_q, *of_k, *of_v;
    i64 of_q_row, of_k_row, of_v_row;
};

// What the queries of a part hold, `count` blocks of 32 of a head each: shares and gradients of scores as second
// operands, a panel of keys after another; queries and gradients of outputs across (dim, across).
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
    float kept;            // what a share is multiplied by that dropout keeps
    uint32_t rows[PANEL];  // those that it keeps of the panel at hand, with dropout
};

struct Line {
    __m512i share, of_score;
};

// Which keys of the panel from `j` on are in the range.
static inline __mmask32 mask_of(Range sees, i64 j) {
    auto before = [&](i64 key) { return (uint64_t(1) << std::min(std::max<i64>(key - j, 0), PANEL)) - 1; };
    return __mmask32(before(sees.last) & ~before(sees.first));
}

// Shares of one panel of keys, from `j` on, as values were read with them, and the gradients of their scores but for the
// scale; of what the query does not see, zero.
template <bool DROPS>
static inline Line line(const Queries& of, i64 r, const float* scores, const float* of_p, i64 j, __m512 scale) {
    __mmask32 sees = mask_of(of.sees[r], j), kept = DROPS ? of.rows[r] : ~0u;
    __m512 most = _mm512_set1_ps(of.highest[r]), norm = _mm512_set1_ps(of.share[r]), dot = _mm512_set1_ps(of.dot[r]);
    scores += r * PANEL, of_p += r * PANEL;
    __m512 low = _mm512_mul_ps(norm, power(_mm512_fmsub_ps(_mm512_loadu_ps(scores), scale, most)));
    __m512 high = _mm512_mul_ps(norm, power(_mm512_fmsub_ps(_mm512_loadu_ps(scores + TILE), scale, most)));
    __m512 grad_low = _mm512_loadu_ps(of_p), grad_high = _mm512_loadu_ps(of_p + TILE), by = _mm512_set1_ps(of.kept);
    if (DROPS) {
        grad_low = _mm512_maskz_mul_ps(__mmask16(kept), grad_low, by);
        grad_high = _mm512_maskz_mul_ps(__mmask16(kept >> TILE), grad_high, by);
    }
    __m512i of_score = narrow(_mm512_mul_ps(low, _mm512_sub_ps(grad_low, dot)), _mm512_mul_ps(high, _mm512_sub_ps(grad_high, dot)));
    if (DROPS) low = _mm512_mul_ps(low, by), high = _mm512_mul_ps(high, by);
    return {_mm512_maskz_mov_epi16(sees & kept, narrow(low, high)), _mm512_maskz_mov_epi16(sees, of_score)};
}

// A block's shares of a panel and the gradients of its scores as second operands, these also as they lie, rows apart; of
// queries that are not real, zero and nothing.
template <bool DROPS>
static void put_panel(const Queries& of, i64 real, const float* scores, const float* of_p, i64 j, float scale, char* p,
                      char* s, bf16* lying, i64 apart) {
    __m512 by = _mm512_set1_ps(scale);
    for (i64 r = 0; r < real; r += 2, p += 64, s += 64, lying += 2 * apart) {
        Line even = line<DROPS>(of, r, scores, of_p, j, by), odd = line<DROPS>(of, r + 1, scores, of_p, j, by);
        interleave(even.share, odd.share, p);
        interleave(even.of_score, odd.of_score, s);
        _mm512_storeu_si512(lying, even.of_score);
        _mm512_storeu_si512(lying + apart, odd.of_score);
    }
    for (i64 r = (real + 1) / 2; r < PANEL / 2; r++, p += 64, s += 64)
        for (char* to : {p, p + TILE_BYTES, s, s + TILE_BYTES}) _mm512_storeu_si512(to, _mm512_setzero_si512());
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

// A row's shares times their gradients, summed, are its output times the output's gradient g.
static inline void fill(const Heads& at, const Back& back, const Piece& piece, const Block& block, const bf16* g,
                        Queries& of) {
    __m512 dots[PANEL] = {};
    for (i64 r = 0; r < PANEL; r++) {
        i64 t = block.first + r;
        bool real = r < block.real;
        const bf16* out = back.out + t * back.out_row + block.head * at.dim;
        for (i64 j = 0; real && j < at.dim; j += DEEP) {
            __m512i a = _mm512_loadu_si512(g + r * at.dim + j), b = _mm512_loadu_si512(out + j);
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
    i64 dim = at.dim, deep = dim / DEEP, apart = sides.apart, first = now.panels.first, last = now.panels.last;
    i64 asked = 0;
    bf16 *q = hold<bf16>(4, 2 * PANEL * dim), *g = q + PANEL * dim, *s = hold<bf16>(5, PANEL * apart);
    float *both = hold<float>(6, 4 * PANEL * PANEL), *sums = hold<float>(12, PANEL * dim);
    auto query = [&](i64 r) { return now.first + r; };
    Queries of;
    of.kept = at.kept();
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
        char *p_tiles = part.tiles(part.p, n - 1, m), *s_tiles = part.tiles(part.s, n - 1, m);
        if (at.dropout) keep(at, piece, now, j, of.rows);
        (at.dropout ? put_panel<true> : put_panel<false>)(of, now.real, before, before + PANEL * PANEL, j, at.scale * LOG2E, p_tiles,
                                                         s_tiles, s + j, apart);
        for (; asked < (n - first) * PANEL / (last - first); asked++) ask_ahead(at, back, now, next, asked);
    }
    const char* keys = sides.keys + first * 2 * TILE_BYTES;
    times(s + now.begin(), apart, keys, sides.wide / DEEP, last - first, deep, sums, dim);
    for (i64 r = 0; r < now.real; r++) {
        i64 t = now.first + r;
        const float *cos = at.cos ? at.cos + t * dim : nullptr, *sin = at.cos ? at.sin + t * dim : nullptr;
        write_head(sums + r * dim, at.scale, cos, sin, back.of_q + t * back.of_q_row + now.head * dim, dim);
    }
}

// sums (dim, keys), rows apart, (+)= what a part's queries or gradients of outputs are times its tiles; added to in the
// panels before `begun`.
static void add_part(const Heads& at, const Piece& piece, const Part& part, i64 l, i64 begun, const bf16* left,
                     char* tiles, float* sums, i64 apart) {
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
static void add_turned(const Heads& at, const Piece& piece, Range panels, const float* sums, i64 apart, i64 base,
                       float* of) {
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
    Sides sides{laid(2, k, dim, wide, true), laid(3, v, dim, wide, true), laid(11, k, wide, dim, false), wide, apart};
    float *k_sums = hold<float>(7, 2 * dim * apart), *v_sums = k_sums + dim * apart;
    Range written = panels_seen(at, piece, 0);
    written.last = written.first;
    for (i64 l = 0; l < piece.queries; l += PART) {
        i64 blocks = (std::min(PART, piece.queries - l) + PANEL - 1) / PANEL, count = blocks * at.shared;
        Part part{{panels_seen(at, piece, l).first, panels_seen(at, piece, l + (blocks - 1) * PANEL).last},
                  count, count * PANEL + APART, nullptr, nullptr, nullptr, nullptr};
        i64 tiles = (part.panels.last - part.panels.first) * count * 2 * TILE_BYTES;
        part.p = hold<char>(8, 2 * tiles), part.s = part.p + tiles;
        part.q = hold<bf16>(9, 2 * dim * part.across), part.g = part.q + dim * part.across;
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
    float *of_k = hold<float>(10, 2 * (end - base) * dim), *of_v = of_k + (end - base) * dim;
    for (const Piece* piece = from; piece < to; piece++)
        for (float* of : {of_k, of_v})
            memset(of + (piece->token - base) * dim, 0, piece->queries * dim * sizeof(float));
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
