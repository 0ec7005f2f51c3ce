// Operations on the same rows, one after another, a block of rows at a time: what goes from one to the next stays in a
// core's own cache. Right factors are laid out first, by all threads; after that no thread waits for another.
#include "rows.h"
#include "tiles.h"

#ifdef HAS_TILES
#include <omp.h>

namespace {

// Where rows are: in a tensor (at: its address), or in each thread's own room, a block of them (at: bytes from its
// beginning). stride in bytes.
struct Place {
    i64 at, stride, own;
};

enum Kind { PRODUCT, NORM, GATE };

struct Step {
    i64 kind, width;
    Place out, first, second;  // of a product: second is what is added, or nowhere
    const bf16* weight;  // of a norm
    float eps;
    std::vector<Place> lefts;  // of each term
    std::vector<Term> terms;
};

struct Block {
    i64 begin, rows;
    char* room;
    bf16* of(const Place& p, i64 row = 0) const {
        if (!p.at && !p.own) return nullptr;
        return (bf16*)(p.own ? room + p.at + row * p.stride : (char*)p.at + (begin + row) * p.stride);
    }
};

// A right factor and where it is laid out; first: its first panel among those of all.
struct Laying {
    Term term;
    char* to;
    i64 first;
};

thread_local std::vector<char> laid_room, own_room;

void multiply_rows(const Step& s, const Block& block) {
    const i64 size = sizeof(bf16);
    Job job{block.rows, s.width, 1, (char*)block.of(s.out), s.out.stride / size, 1, 0, 0,
            block.of(s.second), s.second.stride / size, 0, 0, s.terms};
    for (size_t t = 0; t < job.terms.size(); t++) job.terms[t].a = block.of(s.lefts[t]);
    compute(job, 0, block.rows, 0, s.width);
}

void run(const Step& s, const Block& block) {
    if (s.kind == PRODUCT) return multiply_rows(s, block);
    for (i64 i = 0; i < block.rows; i++) {
        const bf16* x = block.of(s.first, i);
        if (s.kind == NORM)
            norm_row(x, s.weight, block.of(s.out, i), s.width, s.eps);
        else
            gate(x, block.of(s.second, i), block.of(s.out, i), s.width);
    }
}

Place place(const i64*& p) {
    p += 3;
    return {p[-3], p[-2], p[-1]};
}

Step read(const i64*& p) {
    Step s{p[0], p[1], {}, {}, {}, (const bf16*)p[2], float_of(p[3]), {}, {}};
    i64 terms = p[4];
    p += 5;
    s.out = place(p), s.first = place(p), s.second = place(p);
    for (i64 t = 0; t < terms; t++, p += 6) {
        s.lefts.push_back(place(p));
        i64 row = s.lefts.back().stride / i64(sizeof(bf16));
        s.terms.push_back({nullptr, (const void*)p[0], row, 1, 0, p[1], p[2], 0, p[3], p[4], float_of(p[5])});
    }
    return s;
}

// What is to be laid out, and its panels; the steps read it there.
std::vector<Laying> layings(std::vector<Step>& steps, i64* panels) {
    auto lies = [](const Step& s, const Term& t) { return (t.b_row || t.b_col) && t.inner % DEEP == 0 && s.width % PANEL == 0; };
    std::vector<Laying> found;
    i64 bytes = 0;
    for (const Step& s : steps)
        for (const Term& t : s.terms) bytes += lies(s, t) * t.inner * s.width * i64(sizeof(bf16));
    char* to = room<char>(laid_room, bytes);
    for (Step& s : steps)
        for (Term& t : s.terms)
            if (lies(s, t)) {
                found.push_back({t, to, *panels});
                t.b = to, t.b_row = t.b_col = 0;
                to += t.inner * s.width * sizeof(bf16), *panels += s.width / PANEL;
            }
    return found;
}

void lay_panel(const std::vector<Laying>& all, i64 panel) {
    size_t l = all.size() - 1;
    while (all[l].first > panel) l--;
    const Term& t = all[l].term;
    i64 n = (panel - all[l].first) * PANEL;
    pack_b({&t, 0, t.inner, t.inner / DEEP}, n, n + PANEL, all[l].to + n * t.inner * sizeof(bf16));
}

}  // namespace

// p: of each of `count` steps kind, width, weight, eps (as bits), terms; out, first, second (three numbers each: Place);
// and of each term left (a Place), right, its strides, inner, wide, scale. high: rows of a block at most; room: bytes that one takes.
EXPORT void chain(const i64* p, i64 count, i64 rows, i64 high, i64 room_bytes, int threads) {
    std::vector<Step> steps;
    for (i64 i = 0; i < count; i++) steps.push_back(read(p));
    i64 panels = 0, parts = (rows + high - 1) / high;
    parts = (parts + threads - 1) / threads * threads;
    const std::vector<Laying> lay = layings(steps, &panels);
    auto begin = [=](i64 part) { return part < parts ? rows * part / parts / PANEL * PANEL : rows; };
    Shapes shapes;
#pragma omp parallel num_threads(threads)
    {
        _tile_loadconfig(&shapes);
        char* own = room<char>(own_room, room_bytes);
#pragma omp for schedule(static)
        for (i64 i = 0; i < panels; i++) lay_panel(lay, i);
#pragma omp for schedule(dynamic, 1)
        for (i64 part = 0; part < parts; part++) {
            Block block{begin(part), begin(part + 1) - begin(part), own};
            if (block.rows)
                for (const Step& s : steps) run(s, block);
        }
        _tile_release();
    }
}
#endif
