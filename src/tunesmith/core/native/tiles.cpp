// Jobs of tiles (tiles.h), divided among threads. Where a processor has none, has_tiles() says 0.
#include "tiles.h"

#ifdef HAS_TILES
#include <omp.h>
#include <sys/syscall.h>
#include <unistd.h>

EXPORT i64 has_tiles() {
    const int request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, Linux's Documentation/arch/x86/xstate.rst
    return syscall(SYS_arch_prctl, request, tile_data) == 0;
}

// One of a batch.
static Job nth(Job job, i64 number) {
    job.out += number * job.out_next * (job.wide ? 4 : 2);
    if (job.past) job.past += number * job.past_next;
    for (Term& t : job.terms)
        t.a += number * t.a_next, t.b = (const char*)t.b + number * t.b_next * (t.wide ? 4 : 2);
    return job;
}

// One thread's share: whole products of a batch; of a single one columns where there are enough of them, else rows.
static void share(const Job& job, i64 thread, i64 threads) {
    i64 alone = job.batch / threads * threads;  // the rest of a batch is divided
    for (i64 i = thread; i < alone; i += threads) compute(nth(job, i), 0, job.rows, 0, job.columns);
    i64 wide = (job.columns + PANEL - 1) / PANEL, tall = (job.rows + 2 * TILE - 1) / (2 * TILE);
    bool across = job.terms[0].a_col != 1 && tall > wide;  // each thread would lay out all of the larger operand
    bool by_columns = !across && (wide % threads == 0 || wide >= 4 * threads || wide > tall);
    i64 parts = by_columns ? wide : tall;
    i64 first = parts * thread / threads * PANEL, end = parts * (thread + 1) / threads * PANEL;
    for (i64 i = alone; i < job.batch; i++) {
        if (by_columns)
            compute(nth(job, i), 0, job.rows, first, std::min(end, job.columns));
        else
            compute(nth(job, i), first, std::min(end, job.rows), 0, job.columns);
    }
}

static void multiply_jobs(const std::vector<Job>& jobs, int threads) {
    Shapes shapes;
#pragma omp parallel num_threads(threads)
    {
        _tile_loadconfig(&shapes);
        for (const Job& job : jobs) {
            if (job.after) {
#pragma omp barrier
            }
            share(job, omp_get_thread_num(), omp_get_num_threads());
        }
        _tile_release();
    }
}
static void lay_out_panels(const Term& term, i64 columns, char* out, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 n = 0; n < columns; n += PANEL)
        pack_b({&term, 0, term.inner, term.inner / DEEP}, n, n + PANEL, out + n * term.inner * 2);
}
#else
EXPORT i64 has_tiles() { return 0; }
static void lay_out_panels(const Term&, i64, char*, int) {}
static void multiply_jobs(const std::vector<Job>&, int) {}
#endif

// b (inner, columns), both whole multiples of 32, as tiles read it: panel after panel, into as many elements.
EXPORT void lay_out(const void* b, i64 b_row, i64 b_col, i64 inner, i64 columns, void* out, int threads) {
    lay_out_panels({nullptr, (const bf16*)b, 0, 0, 0, b_row, b_col, 0, inner}, columns, (char*)out, threads);
}

// program: of each job rows, columns, batch, out, out_row, out_col, out_next, wide, past, past_row, past_next, after, scale,
// count, and of each of its `count` terms a, a_row, a_col, a_next, b, b_row, b_col, b_next, inner, wide, scale; addresses as
// numbers, a scale as its bits.
EXPORT void sums_of_products(const i64* p, i64 count, int threads) {
    std::vector<Job> jobs;
    for (i64 j = 0; j < count; j++) {
        jobs.push_back({p[0], p[1], p[2], (char*)p[3], p[4], p[5], p[6], p[7], (const bf16*)p[8], p[9], p[10], p[11], {}, float_of(p[12])});
        i64 terms = p[13];
        p += 14;
        for (i64 t = 0; t < terms; t++, p += 11)
            jobs.back().terms.push_back({(const bf16*)p[0], (const void*)p[4], p[1], p[2], p[3], p[5], p[6], p[7], p[8], p[9],
                                         float_of(p[10])});
    }
    multiply_jobs(jobs, threads);
}
