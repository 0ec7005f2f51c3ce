// Sums of matrix products in bfloat16 by AMX tiles (Intel 64 and IA-32 Architectures SDM, TDPBF16PS): both operands are
// read where and as they lie, rows or columns first, all terms are summed in float, and rounded once. A tile holds 16 rows
// of 64 bytes; the second operand's have two rows of 16 columns each in pairs (pack_b).
#pragma once
#include "common.h"
#include <algorithm>

// One product of a job: a (rows, inner), b (inner, columns). Strides in elements; of each operand one is 1. a_next, b_next:
// from one of a batch to the next. A b that was laid out (lay_out) has no strides. wide: b is float, read as bfloat16 of
// `scale` times what it says.
struct Term {
    const bf16* a;
    const void* b;
    i64 a_row, a_col, a_next, b_row, b_col, b_next, inner;
    i64 wide = 0;
    float scale = 1;

    template <class T> const T* b_at(i64 k, i64 column) const { return (const T*)b + k * b_row + column * b_col; }
};

// out (rows, columns) = scale * sum of terms + past (or null), `batch` times. wide: out is float, else bfloat16. after:
// what ran before is done.
struct Job {
    i64 rows, columns, batch;
    char* out;
    i64 out_row, out_col, out_next, wide;
    const bf16* past;
    i64 past_row, past_next, after;
    std::vector<Term> terms;
    float scale = 1;
};

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__AVX512BW__)
#define HAS_TILES
#include <immintrin.h>

const i64 TILE = 16, DEEP = 32, PANEL = 32;  // rows, inner elements of a tile; columns that are computed together
const i64 STEPS = 18;  // inner steps of DEEP that one pass takes (and two more, where a thin term follows)
const i64 SHORT = 12;  // the same of several passes, whose sums take room too
const i64 ROWS = 2048, PANELS = 24, LEAST_PANELS = 9;  // of a block
const i64 HELD = 490;  // its second operands' steps times panels, in the second cache
const i64 TILE_BYTES = 1024;

struct Shapes {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Part of a term: `steps` tiles deep, of which the last may have fewer elements.
struct Chunk {
    const Term* term;
    i64 first, inner, steps;
};

// The first n of 16.
static inline __mmask16 mask_of(i64 n) { return n >= TILE ? __mmask16(-1) : n <= 0 ? __mmask16(0) : __mmask16((1 << n) - 1); }

static inline __m512i pairs(const bf16* even, const bf16* odd, __mmask16 columns) {
    __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(columns, even));
    if (!odd) return low;
    return _mm512_or_si512(low, _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(columns, odd)), 16));
}

static inline void transpose(__m512i r[16]) {  // of 16 x 16 words of 32 bits
    __m512i t[16];
    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) {
        r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

// 16 lines of up to 32 consecutive elements each, as they lie, `lines` of them and `deep` elements real; else zero.
static inline void read_lines(const bf16* from, i64 stride, i64 lines, i64 deep, __m512i r[16]) {
    __mmask32 mask = deep >= DEEP ? ~__mmask32(0) : (__mmask32(1) << deep) - 1;
    for (i64 i = 0; i < TILE; i++)
        r[i] = i < lines ? _mm512_maskz_loadu_epi16(mask, from + i * stride) : _mm512_setzero_si512();
}

// The same of elements that lie across: line i is column i of `from`, whose rows are the elements.
static inline void read_across(const bf16* from, i64 stride, i64 lines, i64 deep, __m512i r[16]) {
    __mmask16 mask = mask_of(lines);
    for (i64 i = 0; i < TILE; i++) {
        if (2 * i >= deep)
            r[i] = _mm512_setzero_si512();
        else
            r[i] = pairs(from + 2 * i * stride, 2 * i + 1 < deep ? from + (2 * i + 1) * stride : nullptr, mask);
    }
}

static inline __m512 scaled(const float* x, __mmask16 real, float scale) {
    return _mm512_mul_ps(_mm512_maskz_loadu_ps(real, x), _mm512_set1_ps(scale));
}

// As read_lines, of float, each times `scale` and rounded.
static inline void read_lines(const float* from, i64 stride, i64 lines, i64 deep, float scale, __m512i r[16]) {
    for (i64 i = 0; i < TILE; i++, from += stride) {
        __mmask16 low = i < lines ? mask_of(deep) : __mmask16(0), high = i < lines ? mask_of(deep - TILE) : __mmask16(0);
        r[i] = (__m512i)_mm512_cvtne2ps_pbh(scaled(from + TILE, high, scale), scaled(from, low, scale));
    }
}

static inline void read_across(const float* from, i64 stride, i64 lines, i64 deep, float scale, __m512i r[16]) {
    auto rounded = [&](i64 k) {
        return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(scaled(from + k * stride, k < deep ? mask_of(lines) : __mmask16(0), scale)));
    };
    for (i64 i = 0; i < TILE; i++) r[i] = _mm512_or_si512(rounded(2 * i), _mm512_slli_epi32(rounded(2 * i + 1), 16));
}

static inline void write_tile(void* to, i64 stride, const __m512i r[16]) {
    for (i64 i = 0; i < TILE; i++) _mm512_storeu_si512((char*)to + i * stride, r[i]);
}

// Two rows of 32 columns, interleaved: what two tiles have of them.
static inline void interleave(__m512i a, __m512i b, char* to) {
    const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5,
                                         36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
    _mm512_storeu_si512(to, _mm512_permutex2var_epi16(a, low, b));
    _mm512_storeu_si512(to + TILE_BYTES, _mm512_permutex2var_epi16(a, _mm512_add_epi16(low, _mm512_set1_epi16(16)), b));
}

// One step of a panel that begins at `column`: its tiles, one after another.
static inline void pack_step(const Chunk& chunk, i64 step, i64 column, i64 end, char* to) {
    const Term& t = *chunk.term;
    i64 k = chunk.first + step * DEEP, deep = std::min(DEEP, chunk.first + chunk.inner - k);
    const bf16* from = t.b_at<bf16>(k, column);
    if (t.b_col == 1 && end - column >= PANEL && deep == DEEP && !t.wide) {
        for (i64 i = 0; i < TILE; i++, from += 2 * t.b_row)
            interleave(_mm512_loadu_si512(from), _mm512_loadu_si512(from + t.b_row), to + i * 64);
        return;
    }
    __m512i r[16];
    for (i64 n = column; n < std::min(column + PANEL, end); n += TILE, to += TILE_BYTES) {
        i64 lines = std::min(TILE, end - n);
        if (t.b_col == 1) {
            if (t.wide)
                read_across(t.b_at<float>(k, n), t.b_row, lines, deep, t.scale, r);
            else
                read_across(t.b_at<bf16>(k, n), t.b_row, lines, deep, r);
        } else {
            if (t.wide)
                read_lines(t.b_at<float>(k, n), t.b_col, lines, deep, t.scale, r);
            else {
                const bf16* from = t.b_at<bf16>(k, n);
                for (i64 i = 0; i < lines; i++) _mm_prefetch(from + i * t.b_col + 2 * DEEP, _MM_HINT_T0);
                read_lines(from, t.b_col, lines, deep, r);
            }
            transpose(r);
        }
        write_tile(to, 64, r);
    }
}

// Columns [column, end) of a chunk's second operand, panel after panel, of each step after step; read as they lie.
static void pack_b(const Chunk& chunk, i64 column, i64 end, char* to) {
    i64 steps = chunk.steps, count = (end - column + PANEL - 1) / PANEL;
    bool across = chunk.term->b_col == 1;
    for (i64 i = 0; i < steps * count; i++) {
        i64 step = across ? i / count : i % steps, panel = across ? i % count : i / steps, n = column + panel * PANEL;
        i64 tiles = end - n > TILE ? 2 : 1;
        pack_step(chunk, step, n, end, to + (panel * steps * 2 + step * tiles) * TILE_BYTES);
    }
}

// Rows [row, row + count) of a chunk's first operand, each chunk.steps * 64 bytes; up to a full tile, zeros.
static void pack_a(const Chunk& chunk, i64 row, i64 count, char* to) {
    const Term& t = *chunk.term;
    i64 stride = chunk.steps * 64;
    __m512i r[16];
    for (i64 m = 0; m < count; m += TILE) {
        i64 real = std::min(TILE, count - m);
        for (i64 s = 0; s < chunk.steps; s++) {
            i64 k = chunk.first + s * DEEP, deep = std::min(DEEP, chunk.first + chunk.inner - k);
            const bf16* from = t.a + (row + m) * t.a_row + k * t.a_col;
            if (t.a_col == 1) {
                read_lines(from, t.a_row, real, deep, r);
            } else {
                read_across(from, t.a_col, real, deep, r);
                transpose(r);
            }
            write_tile(to + m * stride + s * 64, stride, r);
        }
    }
}

// Where the rows of a chunk begin (first tile's row 0), and how far they are apart, in bytes.
struct Lines {
    const char* at;
    i64 stride;
};

struct Nothing {
    void operator()() const {}
};

// sums (M * 16, N * 16), rows `apart` floats apart, (+)= all chunks. meanwhile: what vectors do at each step.
template <int M, int N, class Meanwhile = Nothing>
static inline void multiply(const Lines* a, const char* const* b, const Chunk* chunks, i64 count, float* sums, i64 apart,
                            bool begin, Meanwhile meanwhile = {}) {
    i64 wide = apart * 4;
    if (begin) {
        _tile_zero(0);
        if (N > 1) _tile_zero(1);
        if (M > 1) _tile_zero(2);
        if (M > 1 && N > 1) _tile_zero(3);
    } else {
        _tile_loadd(0, sums, wide);
        if (N > 1) _tile_loadd(1, sums + TILE, wide);
        if (M > 1) _tile_loadd(2, sums + TILE * apart, wide);
        if (M > 1 && N > 1) _tile_loadd(3, sums + TILE * apart + TILE, wide);
    }
    for (i64 c = 0; c < count; c++) {
        const char *left = a[c].at, *right = b[c];
        i64 stride = a[c].stride;
        for (i64 s = 0; s < chunks[c].steps; s++, left += 64, right += N * TILE_BYTES) {
            _tile_stream_loadd(6, right, 64);
            _tile_loadd(4, left, stride);
            _tile_dpbf16ps(0, 4, 6);
            if (N > 1) {
                _tile_stream_loadd(7, right + TILE_BYTES, 64);
                _tile_dpbf16ps(1, 4, 7);
            }
            if (M > 1) {
                _tile_loadd(5, left + TILE * stride, stride);
                _tile_dpbf16ps(2, 5, 6);
                if (N > 1) _tile_dpbf16ps(3, 5, 7);
            }
            meanwhile();
        }
    }
    _tile_stored(0, sums, wide);
    if (N > 1) _tile_stored(1, sums + TILE, wide);
    if (M > 1) _tile_stored(2, sums + TILE * apart, wide);
    if (M > 1 && N > 1) _tile_stored(3, sums + TILE * apart + TILE, wide);
}

static inline __m512 widened(const bf16* x) {
    return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)x)), 16);
}

static void store(const Job& job, i64 row, i64 rows, i64 column, i64 columns, const float* sums, i64 apart) {
    for (i64 m = 0; m < rows; m++, sums += apart) {
        const bf16* past = job.past ? job.past + (row + m) * job.past_row + column : nullptr;
        i64 at = (row + m) * job.out_row + column * job.out_col;
        for (i64 n = 0; n < columns; n += TILE, at += TILE * job.out_col) {
            __mmask16 mask = mask_of(columns - n);
            __m512 x = _mm512_mul_ps(_mm512_loadu_ps(sums + n), _mm512_set1_ps(job.scale));
            if (past) x = _mm512_add_ps(x, (__m512)_mm512_slli_epi32(pairs(past + n, nullptr, mask), 16));
            __m256i narrow = (__m256i)_mm512_cvtneps_pbh(x);
            if (job.out_col == 1) {
                if (job.wide)
                    _mm512_mask_storeu_ps((float*)job.out + at, mask, x);
                else
                    _mm256_mask_storeu_epi16((bf16*)job.out + at, mask, narrow);
                continue;
            }
            float wide[TILE];
            bf16 short_[TILE];
            _mm512_storeu_ps(wide, x);
            _mm256_storeu_si256((__m256i*)short_, narrow);
            for (i64 i = 0; i < std::min(TILE, columns - n); i++) {
                if (job.wide)
                    ((float*)job.out)[at + i * job.out_col] = wide[i];
                else
                    ((bf16*)job.out)[at + i * job.out_col] = short_[i];
            }
        }
    }
}

// A whole panel of bfloat16 on its way out, some rows at each step of the next one's product; what is not one, at once.
struct Writer {
    const Job& job;
    bf16* out = nullptr;
    const bf16* past = nullptr;
    const float* sums = nullptr;
    i64 apart = 0, left = 0;

    void begin(i64 row, i64 rows, i64 column, i64 columns, const float* from, i64 wide) {
        if (columns != PANEL || job.out_col != 1 || job.wide || job.scale != 1)
            return store(job, row, rows, column, columns, from, wide);
        out = (bf16*)job.out + row * job.out_row + column;
        past = job.past ? job.past + row * job.past_row + column : nullptr;
        sums = from, apart = wide, left = rows;
    }
    void write(i64 rows) {
        for (rows = std::min(rows, left); rows > 0; rows--, left--, sums += apart, out += job.out_row) {
            __m512 low = _mm512_loadu_ps(sums), high = _mm512_loadu_ps(sums + TILE);
            if (past) {
                low = _mm512_add_ps(low, widened(past));
                high = _mm512_add_ps(high, widened(past + TILE));
                past += job.past_row;
            }
            _mm512_storeu_si512(out, (__m512i)_mm512_cvtne2ps_pbh(high, low));
        }
    }
};

static thread_local std::vector<char> slabs, panels;
static thread_local std::vector<float> totals;
template <class T> static T* room(std::vector<T>& of, i64 n) {
    if (i64(of.size()) < n + 64) of.resize(n + 64);
    return (T*)((uintptr_t(of.data()) + 63) & ~uintptr_t(63));
}

// Each term in chunks of at most `most` steps.
static std::vector<Chunk> cut(const Job& job, i64 most) {
    std::vector<Chunk> chunks;
    for (const Term& term : job.terms)
        for (i64 k = 0; k < term.inner; k += most * DEEP) {
            i64 inner = std::min(most * DEEP, term.inner - k);
            chunks.push_back({&term, k, inner, (inner + DEEP - 1) / DEEP});
        }
    return chunks;
}

// Some chunks, [from, to), that are taken together.
struct Pass {
    size_t from, to;
    i64 steps;
};

static std::vector<Pass> passes_of(const std::vector<Chunk>& chunks, i64 most) {
    std::vector<Pass> all;
    for (size_t c = 0; c < chunks.size(); c++) {
        if (all.empty() || all.back().steps + chunks[c].steps > most) all.push_back({c, c, 0});
        all.back().to = c + 1, all.back().steps += chunks[c].steps;
    }
    return all;
}

// Rows [row, row + rows) of a chunk's first operand: where they lie if a tile can be read from there, else packed.
static Lines lines_of(const Chunk& chunk, i64 row, i64 rows, char* slab) {
    const Term& t = *chunk.term;
    if (t.a_col == 1 && chunk.inner % DEEP == 0 && rows % TILE == 0)
        return {(const char*)(t.a + row * t.a_row + chunk.first), t.a_row * 2};
    pack_a(chunk, row, rows, slab);
    return {slab, chunk.steps * 64};
}

// What some chunks are multiplied from: first operands' rows, those of whole strips and the rest; second operands, of each
// panel chunk after chunk.
struct Factors {
    std::vector<Lines> body, tail;
    std::vector<const char*> right;
};

static Factors factors_of(const std::vector<Chunk>& chunks, i64 steps, i64 row, i64 rows, i64 column, i64 columns) {
    const i64 high = 2 * TILE, body = rows / high * high, tall = body < rows ? body + high : body;
    const i64 apart = (columns + PANEL - 1) / PANEL * PANEL, count = chunks.size();
    Factors of{{}, {}, std::vector<const char*>(count * apart / PANEL)};
    char *slab = room(slabs, tall * steps * 64), *at = room(panels, steps * apart * 64);
    for (i64 c = 0; c < count; slab += tall * chunks[c].steps * 64, at += apart * chunks[c].steps * 64, c++) {
        const Term& t = *chunks[c].term;
        const bool laid = !t.b_row && !t.b_col;
        if (!laid) pack_b(chunks[c], column, column + columns, at);
        const char* first = laid ? (const char*)t.b + column * t.inner * 2 + chunks[c].first * PANEL * 2 : at;
        const i64 next = laid ? PANEL * t.inner * 2 : PANEL * chunks[c].steps * 64;
        for (i64 n = 0; n < apart / PANEL; n++) of.right[n * count + c] = first + n * next;
        of.body.push_back(lines_of(chunks[c], row, body, slab));
        of.tail.push_back(lines_of(chunks[c], row + body, rows - body, slab + body * chunks[c].steps * 64));
    }
    return of;
}

// Asks for rows [first, end) before they are multiplied: beyond the caches each row is another page.
static inline void ask_for(const std::vector<Lines>& lines, const std::vector<Chunk>& chunks, i64 first, i64 end) {
    for (size_t c = 0; c < lines.size(); c++)
        for (i64 m = first; m < end; m++)
            for (i64 s = 0; s < chunks[c].steps; s++) _mm_prefetch(lines[c].at + m * lines[c].stride + s * 64, _MM_HINT_T1);
}

// Rows [row, row + rows), columns [column, column + columns), all terms. Of chunks that have `held` steps together the
// second operands stay in the second cache; strip after strip of rows passes them, some steps at a time, so that what is
// multiplied of a strip stays in the first cache.
static void compute(const Job& job, const std::vector<Chunk>& chunks, i64 held, i64 row, i64 rows, i64 column, i64 columns) {
    const i64 high = 2 * TILE, body = rows / high * high, apart = (columns + PANEL - 1) / PANEL * PANEL;
    const std::vector<Pass> groups = passes_of(chunks, held);
    for (const Pass& group : groups) {
        const std::vector<Chunk> some(chunks.begin() + group.from, chunks.begin() + group.to);
        const std::vector<Pass> passes = passes_of(some, STEPS + 2);
        const Factors of = factors_of(some, group.steps, row, rows, column, columns);
        const bool first = &group == &groups.front(), last = &group == &groups.back(), only = first && last;
        // Sums live until the next panel's are there; of several passes, until the next strip's; of several groups, all.
        const bool one = only && passes.size() == 1;
        const i64 wide = one ? PANEL : apart;
        float* sums = room(totals, one ? 2 * high * PANEL : only ? high * apart : (rows + high) * apart);
        bool second = false;
        Writer writer{job};
        for (i64 m = 0; m < rows; m += high)
            for (const Pass& pass : passes) {
                const bool begin = first && &pass == &passes.front(), end = last && &pass == &passes.back();
                const bool two = rows - m > TILE;
                const i64 size = pass.to - pass.from;
                Lines left[STEPS + 2];
                for (i64 c = 0; c < size; c++) {
                    const Lines& lines = of.body[pass.from + c];
                    left[c] = m < body ? Lines{lines.at + m * lines.stride, lines.stride} : of.tail[pass.from + c];
                }
                for (i64 n = 0; n < columns; n += PANEL, second = !second) {
                    float* here = sums + (one ? second * high * PANEL : only ? n : m * apart + n);
                    const char* const* right = of.right.data() + n / PANEL * some.size() + pass.from;
                    const Chunk* these = some.data() + pass.from;
                    const bool pair = columns - n > TILE;
                    const i64 next = m + high + high * n / apart, after = m + high + high * (n + PANEL) / apart;
                    if (one && m + 2 * high <= body) ask_for(of.body, some, next, after);
                    if (two && pair)
                        multiply<2, 2>(left, right, these, size, here, wide, begin, [&] { writer.write(2); });
                    else
                        (two ? multiply<2, 1> : pair ? multiply<1, 2> : multiply<1, 1>)(left, right, these, size, here, wide, begin, {});
                    writer.write(high);
                    if (end) writer.begin(row + m, std::min(high, rows - m), column + n, std::min(PANEL, columns - n), here, wide);
                }
            }
        writer.write(high);
    }
}

static void compute(const Job& job, i64 m0, i64 m1, i64 n0, i64 n1) {
    i64 steps = 0;
    bool packs = false;  // first operands: for each block of columns anew, so that these are wide
    for (const Term& t : job.terms) steps += (t.inner + DEEP - 1) / DEEP, packs |= t.a_col != 1;
    const std::vector<Chunk> chunks = cut(job, packs || steps <= STEPS + 2 ? STEPS : SHORT);
    const i64 wide = packs ? PANELS : std::min(PANELS, std::max(LEAST_PANELS, HELD / steps));
    for (i64 n = n0; n < n1; n += wide * PANEL)
        for (i64 m = m0; m < m1; m += ROWS)
            compute(job, chunks, std::max(STEPS + 2, HELD / wide), m, std::min(ROWS, m1 - m), n, std::min(wide * PANEL, n1 - n));
}
#endif
