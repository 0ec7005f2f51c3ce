// Attention of rows that are being written, a token of each, over slots of keys and values.
// q (count, key_heads * shared * dim), k and v (count, key_heads * dim), a token of each row; cos and sin (count, dim): k
// goes, turned, and v to places[i] of slot rows[i] of keys and values (slots, key_heads, length, dim); then q, turned, sees
// the places up to there, at most `window` back (0: all). out as q.
#include "tiles.h"

EXPORT i64 has_tiles();

// Of one key head: q (shared, dim) turned, k and v from the first place seen on; softmax(scale * q k^T) v.
template <class T> struct Places {
    const T *q, *k, *v;
    i64 seen, shared, dim;
    float scale;
    T* out;
};

template <class T> static void attend_places(const Places<T>& at) {
    i64 dim = at.dim;
    float *asked = scratch(2 * dim + at.seen), *sums = asked + dim, *shares = sums + dim;
    for (i64 s = 0; s < at.shared; s++) {
        for (i64 j = 0; j < dim; j++) asked[j] = get(at.q[s * dim + j]) * at.scale, sums[j] = 0;
        float highest = -INFINITY, sum = 0;
        for (i64 p = 0; p < at.seen; p++) {
            float dot = 0;
#pragma omp simd reduction(+ : dot)
            for (i64 j = 0; j < dim; j++) dot += asked[j] * get(at.k[p * dim + j]);
            shares[p] = dot;
            highest = dot > highest ? dot : highest;
        }
#pragma omp simd reduction(+ : sum)
        for (i64 p = 0; p < at.seen; p++) {
            shares[p] = fast_exp(shares[p] - highest);
            sum += shares[p];
        }
        float share = highest == highest ? 1.0f / sum : NAN;
        for (i64 p = 0; p < at.seen; p++) {
            float weight = shares[p] * share;
#pragma omp simd
            for (i64 j = 0; j < dim; j++) sums[j] += weight * get(at.v[p * dim + j]);
        }
        for (i64 j = 0; j < dim; j++) put(at.out + s * dim + j, sums[j]);
    }
}

#ifdef HAS_TILES
const i64 WIDE = 64;  // of a head's dimensions, whose sums are in registers

// of (queries, WIDE) = sum over places of shares[p * TILE + query] * v[p * dim + .]
template <int QUERIES> static void add_values(const float* shares, const bf16* v, i64 dim, i64 seen, bf16* out) {
    __m512 sums[QUERIES][WIDE / TILE];
    for (int q = 0; q < QUERIES; q++)
        for (int n = 0; n < WIDE / TILE; n++) sums[q][n] = _mm512_setzero_ps();
    for (i64 p = 0; p < seen; p++, v += dim, shares += TILE)
        for (int n = 0; n < WIDE / TILE; n++) {
            __m512 value = widened(v + n * TILE);
            for (int q = 0; q < QUERIES; q++) sums[q][n] = _mm512_fmadd_ps(_mm512_set1_ps(shares[q]), value, sums[q][n]);
        }
    for (int q = 0; q < QUERIES; q++)
        for (int n = 0; n < WIDE / TILE; n++)
            _mm256_storeu_si256((__m256i*)(out + q * dim + n * TILE), (__m256i)_mm512_cvtneps_pbh(sums[q][n]));
}

// The same by tiles: scores of 16 keys, which lie as they are read, and up to 16 queries at a time.
static void attend_tiled(const Places<bf16>& at) {
    i64 dim = at.dim, deep = dim / DEEP, tall = (at.seen + TILE - 1) / TILE * TILE;
    char *by_query = room(slabs, deep * TILE_BYTES), *tail = room(panels, TILE * dim * 2);
    float* scores = room(totals, tall * TILE);
    __m512i lines[16];
    for (i64 s = 0; s < deep; s++) {
        read_lines(at.q + s * DEEP, dim, at.shared, DEEP, lines);
        transpose(lines);
        write_tile(by_query + s * TILE_BYTES, 64, lines);
    }
    __m512 highest = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps();
    for (i64 p = 0; p < at.seen; p += TILE) {
        const char* keys = (const char*)(at.k + p * dim);
        if (at.seen - p < TILE) {  // what lies behind is not there to be read
            memcpy(tail, keys, (at.seen - p) * dim * 2);
            keys = tail;
        }
        for (i64 n = 0; n < TILE * dim; n += DEEP) _mm_prefetch((const char*)(at.v + p * dim + n), _MM_HINT_T0);
        _tile_zero(0);
        for (i64 s = 0; s < deep; s++) {
            _tile_loadd(4, keys + s * 64, dim * 2);
            _tile_loadd(6, by_query + s * TILE_BYTES, 64);
            _tile_dpbf16ps(0, 4, 6);
        }
        _tile_stored(0, scores + p * TILE, 64);
    }
    for (i64 p = 0; p < at.seen; p++) highest = _mm512_max_ps(highest, _mm512_loadu_ps(scores + p * TILE));
    // A query's scores stand in a column.
    float of_query[16];
    _mm512_storeu_ps(of_query, highest);
    for (i64 p = 0; p < at.seen; p++) {
        float* to = scores + p * TILE;
#pragma omp simd
        for (i64 q = 0; q < TILE; q++) to[q] = fast_exp((to[q] - of_query[q]) * at.scale);
        sum = _mm512_add_ps(sum, _mm512_loadu_ps(to));
    }
    __m512 share = _mm512_div_ps(_mm512_set1_ps(1.0f), sum);
    for (i64 p = 0; p < at.seen; p++)
        _mm512_storeu_ps(scores + p * TILE, _mm512_mul_ps(share, _mm512_loadu_ps(scores + p * TILE)));
    for (i64 n = 0; n < dim; n += WIDE)
        for (i64 q = 0; q < at.shared; q += 4) {
            i64 rest = at.shared - q;
            auto add = rest >= 4 ? add_values<4> : rest == 3 ? add_values<3> : rest == 2 ? add_values<2> : add_values<1>;
            add(scores + q, at.v + n, dim, at.seen, at.out + q * dim + n);
        }
}

static void attend(const Places<bf16>& at, bool tiled) { tiled ? attend_tiled(at) : attend_places(at); }
static bool in_tiles(bf16, i64 dim, i64 shared) { return dim % WIDE == 0 && shared <= TILE && has_tiles(); }

// A thread's tiles are set as long as this lives.
struct Tiling {
    bool on;
    Shapes shapes;
    Tiling(bool on) : on(on) {
        if (on) _tile_loadconfig(&shapes);
    }
    ~Tiling() {
        if (on) _tile_release();
    }
};
#else
struct Tiling {
    Tiling(bool) {}
};
static void attend(const Places<bf16>& at, bool) { attend_places(at); }
static bool in_tiles(bf16, i64, i64) { return false; }
#endif
static void attend(const Places<float>& at, bool) { attend_places(at); }
static bool in_tiles(float, i64, i64) { return false; }

template <class T>
static void attend_slots(const void* q_, const void* k_, const void* v_, const float* cos, const float* sin, void* keys_,
                         void* values_, const i64* rows, const i64* places, void* out_, i64 count, i64 key_heads, i64 shared,
                         i64 length, i64 dim, i64 window, float scale, int threads) {
    const T *q = (const T*)q_, *new_k = (const T*)k_, *new_v = (const T*)v_;
    T *keys = (T*)keys_, *values = (T*)values_, *out = (T*)out_;
    bool tiled = in_tiles(T(), dim, shared);
#pragma omp parallel num_threads(threads)
    {
        std::vector<T> turned(shared * dim);
        Tiling tiling(tiled);
#pragma omp for collapse(2) schedule(dynamic, 4)
        for (i64 i = 0; i < count; i++) {
            for (i64 h = 0; h < key_heads; h++) {
                i64 last = places[i] + 1, first = window && last > window ? last - window : 0, at = i * key_heads + h;
                i64 slot = (rows[i] * key_heads + h) * length;
                const float *c = cos + i * dim, *s = sin + i * dim;
                turn(new_k + at * dim, c, s, keys + (slot + places[i]) * dim, dim / 2);
                memcpy((void*)(values + (slot + places[i]) * dim), (const void*)(new_v + at * dim), dim * sizeof(T));
                for (i64 n = 0; n < shared; n++)
                    turn(q + (at * shared + n) * dim, c, s, turned.data() + n * dim, dim / 2);
                Places<T> one{turned.data(), keys + (slot + first) * dim, values + (slot + first) * dim,
                              last - first, shared, dim, scale, out + at * shared * dim};
                attend(one, tiled);
            }
        }
    }
}
BOTH(attend_slots,
     (const void* q, const void* k, const void* v, const float* cos, const float* sin, void* keys, void* values,
      const i64* rows, const i64* places, void* out, i64 count, i64 key_heads, i64 shared, i64 length, i64 dim, i64 window,
      float scale, int threads),
     (q, k, v, cos, sin, keys, values, rows, places, out, count, key_heads, shared, length, dim, window, scale, threads))
