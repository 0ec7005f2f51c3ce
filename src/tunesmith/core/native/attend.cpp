// Attention over pieces of rows by AMX tiles: see attend.h.
#include "attend.h"

#ifdef HAS_TILES
// Shares of a block but for their norms, from scores of the panels that it sees. kept (panels, 32), or null: which of
// them are written, all count for the norms. meanwhile(r): what else to begin after a row.
template <class F>
static inline void powers(const Heads& at, const Piece& piece, const Block& of, const float* scores, i64 apart,
                          bf16* to, i64 to_apart, const uint32_t* kept, float* highest, float* share, F meanwhile) {
    __m512 by = _mm512_set1_ps(at.scale * LOG2E), of_row[PANEL] = {};
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
            __mmask32 written = kept ? kept[j - of.begin() + r] : ~0u;
            _mm512_storeu_si512(to + j, _mm512_maskz_mov_epi16(written, narrow(low, high)));
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

// A block's shares take the place of its scores, in half the room.
static void forward(const Heads& at, const Piece& piece, i64 h, bf16* out, i64 out_row) {
    i64 dim = at.dim, wide = whole(piece.keys), apart = wide + APART, deep = dim / DEEP;
    auto key = [&](i64 i) { return at.tokens[piece.path + i]; };
    bf16 *k = hold<bf16>(0, wide * dim), *v = hold<bf16>(1, wide * dim), *q = hold<bf16>(4, PANEL * dim);
    take(at.k + h * dim, at.k_row, key, piece.keys, wide, at.cos, at.sin, dim, k);
    take(at.v + h * dim, at.v_row, key, piece.keys, wide, nullptr, nullptr, dim, v);
    const char *by_key = laid(2, k, dim, wide, true), *by_value = laid(3, v, wide, dim, false);
    float *scores = hold<float>(6, PANEL * apart), *sums = hold<float>(12, PANEL * dim), highest[PANEL], share[PANEL];
    bf16* p = (bf16*)scores;
    uint32_t* kept = at.dropout ? hold<uint32_t>(5, wide) : nullptr;
    i64 count = whole(piece.queries) / PANEL * at.shared;
    for (i64 i = 0; i < count; i++) {
        Block now = block_of(at, piece, h, i), next = block_of(at, piece, h, std::min(i + 1, count - 1));
        bf16* to = out + now.first * out_row + now.head * dim;
        auto query = [&](i64 r) { return now.first + r; };
        take(at.q + now.head * dim, at.q_row, query, now.real, PANEL, at.cos, at.sin, dim, q);
        times(q, dim, by_key + now.begin() * dim * 2, deep, deep, now.count(), scores + now.begin(), apart);
        for (i64 j = now.begin(); kept && j < now.end(); j += PANEL) keep(at, piece, now, j, kept + j - now.begin());
        powers(at, piece, now, scores, apart, p, 2 * apart, kept, highest, share, [&](i64 r) {
            if (r < next.real) ask(at.q + (next.first + r) * at.q_row + next.head * dim, dim);
            ask_to_write(to + r * out_row, dim);
        });
        const char* values = by_value + now.panels.first * 2 * TILE_BYTES;
        times(p + now.begin(), 2 * apart, values, wide / DEEP, now.count(), deep, sums, dim);
        for (i64 r = 0; r < now.real; r++)
            write_head(sums + r * dim, share[r] * at.kept(), nullptr, nullptr, to + r * out_row, dim);
        if (!at.norms) continue;
        memcpy(at.norms_of(now.head, now.first), highest, now.real * sizeof(float));
        memcpy(at.norms_of(at.heads() + now.head, now.first), share, now.real * sizeof(float));
    }
}

// pieces (P, 5): see Piece. units (count + 1): where the pieces of each unit begin. dim: a multiple of 32. out as q.
EXPORT void attend_tiles(ATTENTION, int threads) {
    Heads at HEADS;
    each(units, count, key_heads, threads, [&](i64 from, i64 to, i64 h) {
        for (i64 i = from; i < to; i++) forward(at, pieces[i], h, (bf16*)out, out_row);
    });
}
#endif
