// Attention over pieces of rows by AMX tiles, softmax(scale * q k^T) v as in arXiv:1706.03762, 3.2.1: a head's keys and
// values of one piece stay in the cache, scores are float and leave it neither way. What the backward pass needs is computed
// again (arXiv:2205.14135, 3.1), so no shares are kept.
#include "tiles.h"

#ifdef HAS_TILES
#include <omp.h>

// Queries: `queries` tokens from `token` on, the first at place `before` of its path; they see at most the first `keys` of
// the tokens from `path` on (of an array of tokens).
struct Piece {
    i64 token, queries, before, path, keys;
};

// Queries, keys and values (tokens, heads * dim), rows apart by the strides; cos and sin (tokens, dim), or null.
struct Heads {
    const bf16 *q, *k, *v;
    i64 q_row, k_row, v_row;
    const float *cos, *sin;
    const i64* tokens;
    i64 key_heads, shared, dim, causal, window;
    float scale;
};

static inline i64 whole(i64 n) { return (n + PANEL - 1) / PANEL * PANEL; }

// A thread's own copies of what one head of a piece needs.
static thread_local std::vector<char> rooms[10];
template <class T> static T* hold(int which, i64 n) { return (T*)room(rooms[which], n * sizeof(T)); }

// One head of `count` tokens, turned to their positions; up to `padded` rows of zeros. token(i): the i-th one.
template <class F>
static void take(const bf16* x, i64 row, F token, i64 count, i64 padded, const float* cos, const float* sin, i64 dim, bf16* to) {
    for (i64 i = 0; i < count; i++, to += dim) {
        i64 t = token(i);
        if (cos)
            turn(x + t * row, cos + t * dim, sin + t * dim, to, dim / 2);
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

// Shares of 32 queries, the first at `place`, from their scores; zero for what they do not see, and from `real` on.
static void shares(const Heads& at, const float* scores, i64 apart, i64 place, i64 real, i64 keys, bf16* to) {
    for (i64 r = 0; r < PANEL; r++, scores += apart, to += apart) {
        i64 first = 0, last = 0;
        if (r < real) seen(place + r, keys, keys, at.causal, at.window, &first, &last);
        softmax_row(scores, apart, first, last, at.scale, to);
    }
}

static inline i64 panels_seen(const Heads& at, const Piece& piece, i64 from) {
    i64 last = at.causal ? std::min(piece.keys, piece.before + std::min(from + PANEL, piece.queries)) : piece.keys;
    return whole(last) / PANEL;
}

static void forward(const Heads& at, const Piece& piece, i64 h, bf16* out, i64 out_row) {
    i64 dim = at.dim, wide = whole(piece.keys), deep = dim / DEEP;
    auto key = [&](i64 i) { return at.tokens[piece.path + i]; };
    bf16 *k = hold<bf16>(0, wide * dim), *v = hold<bf16>(1, wide * dim);
    take(at.k + h * dim, at.k_row, key, piece.keys, wide, at.cos, at.sin, dim, k);
    take(at.v + h * dim, at.v_row, key, piece.keys, wide, nullptr, nullptr, dim, v);
    const char *by_key = laid(2, k, dim, wide, true), *by_value = laid(3, v, wide, dim, false);
    bf16 *q = hold<bf16>(4, PANEL * dim), *p = hold<bf16>(5, PANEL * wide);
    float *scores = hold<float>(6, PANEL * wide), *sums = hold<float>(7, PANEL * dim);
    for (i64 head = h * at.shared; head < (h + 1) * at.shared; head++)
        for (i64 l = 0; l < piece.queries; l += PANEL) {
            i64 real = std::min(PANEL, piece.queries - l), panels = panels_seen(at, piece, l), first = piece.token + l;
            take(at.q + head * dim, at.q_row, [&](i64 i) { return first + i; }, real, PANEL, at.cos, at.sin, dim, q);
            times(q, dim, by_key, deep, deep, panels, scores, wide);
            shares(at, scores, wide, piece.before + l, real, piece.keys, p);
            times(p, wide, by_value, wide / DEEP, panels, deep, sums, dim);
            for (i64 r = 0; r < real; r++) {
                bf16* to = out + (first + r) * out_row + head * dim;
#pragma omp simd
                for (i64 j = 0; j < dim; j++) put(to + j, sums[r * dim + j]);
            }
        }
}

// of (keys, dim) += left^T right, left (rows, wide), right (rows, dim); of each key its token's place in the sums.
static void add_turned(const Heads& at, const Piece& piece, i64 h, const bf16* left, i64 wide, const bf16* right, i64 rows,
                       float* of) {
    i64 dim = at.dim;
    float* sums = hold<float>(9, wide * dim);
    Job job{piece.keys, dim, 1, (char*)sums, dim, 1, 0, 1, nullptr, 0, 0, 0, {{left, right, 1, wide, 0, dim, 1, 0, rows}}};
    compute(job, 0, piece.keys, 0, dim);
    for (i64 i = 0; i < piece.keys; i++) {
        float* to = of + (at.tokens[piece.path + i] * at.key_heads + h) * dim;
#pragma omp simd
        for (i64 j = 0; j < dim; j++) to[j] += sums[i * dim + j];
    }
}

static void backward(const Heads& at, const Piece& piece, i64 h, const bf16* grad, i64 grad_row, bf16* of_q, i64 of_row,
                     float* of_k, float* of_v) {
    i64 dim = at.dim, wide = whole(piece.keys), tall = whole(piece.queries), rows = at.shared * tall, deep = dim / DEEP;
    auto key = [&](i64 i) { return at.tokens[piece.path + i]; };
    bf16 *k = hold<bf16>(0, wide * dim), *v = hold<bf16>(1, wide * dim);
    take(at.k + h * dim, at.k_row, key, piece.keys, wide, at.cos, at.sin, dim, k);
    take(at.v + h * dim, at.v_row, key, piece.keys, wide, nullptr, nullptr, dim, v);
    const char *by_key = laid(2, k, dim, wide, true), *by_value = laid(3, v, dim, wide, true);
    const char* keys = laid(8, k, wide, dim, false);
    bf16 *q = hold<bf16>(4, 2 * rows * dim), *g = q + rows * dim, *p = hold<bf16>(5, 2 * rows * wide), *s = p + rows * wide;
    float* scores = hold<float>(6, 2 * PANEL * wide), *of_p = scores + PANEL * wide;
    float* sums = hold<float>(7, PANEL * dim);
    for (i64 n = 0, m = 0; n < at.shared; n++)
        for (i64 l = 0; l < piece.queries; l += PANEL, m += PANEL) {
            i64 head = h * at.shared + n, real = std::min(PANEL, piece.queries - l), first = piece.token + l;
            i64 panels = panels_seen(at, piece, l);
            auto query = [&](i64 i) { return first + i; };
            take(at.q + head * dim, at.q_row, query, real, PANEL, at.cos, at.sin, dim, q + m * dim);
            take(grad + head * dim, grad_row, query, real, PANEL, nullptr, nullptr, dim, g + m * dim);
            times(q + m * dim, dim, by_key, deep, deep, panels, scores, wide);
            shares(at, scores, wide, piece.before + l, real, piece.keys, p + m * wide);
            times(g + m * dim, dim, by_value, deep, deep, panels, of_p, wide);
            for (i64 r = 0; r < PANEL; r++) {
                const bf16* share = p + (m + r) * wide;
                const float* of = of_p + r * wide;
                bf16* to = s + (m + r) * wide;
                float dot = 0;
#pragma omp simd reduction(+ : dot)
                for (i64 j = 0; j < panels * PANEL; j++) dot += get(share[j]) * of[j];
#pragma omp simd
                for (i64 j = 0; j < panels * PANEL; j++) put(to + j, get(share[j]) * (of[j] - dot) * at.scale);
                memset((void*)(to + panels * PANEL), 0, (wide - panels * PANEL) * sizeof(bf16));
            }
            times(s + m * wide, wide, keys, wide / DEEP, panels, deep, sums, dim);
            for (i64 r = 0; r < real; r++) {
                bf16* to = of_q + (first + r) * of_row + head * dim;
                const float* of = sums + r * dim;
                if (at.cos)
                    turn_back(of, at.cos + (first + r) * dim, at.sin + (first + r) * dim, to, dim / 2);
                else
                    for (i64 j = 0; j < dim; j++) put(to + j, of[j]);
            }
        }
    add_turned(at, piece, h, s, wide, q, rows, of_k);
    add_turned(at, piece, h, p, wide, g, rows, of_v);
}

// Pieces of one unit share tokens with no other unit, so a thread that takes a unit's head writes alone, in one order.
template <class F> static void each(const i64* units, i64 count, i64 key_heads, int threads, F work) {
    Shapes shapes;
#pragma omp parallel num_threads(threads)
    {
        _tile_loadconfig(&shapes);
#pragma omp for collapse(2) schedule(dynamic, 1)
        for (i64 u = 0; u < count; u++)
            for (i64 h = 0; h < key_heads; h++)
                for (i64 i = units[u]; i < units[u + 1]; i++) work(i, h);
        _tile_release();
    }
}

#define ATTENTION                                                                                                         \
    const void *q, i64 q_row, const void *k, i64 k_row, const void *v, i64 v_row, const float *cos, const float *sin,     \
        const i64 *pieces, const i64 *tokens, const i64 *units, i64 count, i64 key_heads, i64 shared, i64 dim, i64 causal, \
        i64 window, float scale
#define HEADS {(const bf16*)q, (const bf16*)k, (const bf16*)v, q_row, k_row, v_row, cos, sin, tokens, key_heads, shared, dim, causal, window, scale}

// pieces (P, 5): see Piece. units (count + 1): where the pieces of each unit begin. dim: a multiple of 32. out as q.
EXPORT void attend_tiles(ATTENTION, void* out, i64 out_row, int threads) {
    Heads at HEADS;
    each(units, count, key_heads, threads, [&](i64 i, i64 h) { forward(at, ((const Piece*)pieces)[i], h, (bf16*)out, out_row); });
}

// of_k and of_v (tokens, key_heads, dim): sums, to which is added; of_q as q.
EXPORT void attend_tiles_backward(ATTENTION, const void* grad, i64 grad_row, void* of_q, i64 of_row, float* of_k, float* of_v,
                                  int threads) {
    Heads at HEADS;
    each(units, count, key_heads, threads, [&](i64 i, i64 h) {
        backward(at, ((const Piece*)pieces)[i], h, (const bf16*)grad, grad_row, (bf16*)of_q, of_row, of_k, of_v);
    });
}
#endif
