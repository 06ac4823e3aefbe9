/* Products of a plan: fast forms where there are any, windows, and counters. */
#include <string.h>

#include "packed.h"
#include "plan.h"

enum { TILE = 8, ALIGNMENT = 64 }; /* positions that are multiplied together; bytes */

/* Below this share of inputs that are not 0, columns are read one by one where that can be done. */
enum { FEW = 8 };

static size_t aligned(size_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

/* Pieces of a product's scratch: what is seen at TILE positions, what is found there; flags of inputs (bytes),
 * or numbers of inputs (uint32_t). */
typedef struct {
    uint8_t *packed, *seen, *found, *flags;
} mf_pieces;

static size_t packed_bytes(const mf_product *p) {
    return p->packed ? aligned(mf_packed_scratch(p->packed)) : 0;
}

static size_t seen_bytes(const mf_product *p) {
    return p->taps ? aligned((size_t)p->inputs * TILE * 4) : 0;
}

static size_t found_bytes(const mf_product *p) {
    return p->taps ? aligned((size_t)p->out * TILE * 4) : 0;
}

static size_t places_bytes(const mf_product *p) { return aligned((size_t)p->inputs * 4); }

static mf_pieces pieces(const mf_product *p, uint8_t *scratch) {
    mf_pieces made;
    made.packed = scratch;
    made.seen = made.packed + packed_bytes(p);
    made.found = made.seen + seen_bytes(p);
    made.flags = made.found + found_bytes(p);
    return made;
}

size_t mf_product_scratch(const mf_product *p) {
    return packed_bytes(p) + seen_bytes(p) + found_bytes(p) + places_bytes(p);
}

/* --- counters ------------------------------------------------------------------------------------ */
static void count_all(const mf_product *p, mf_counts *counts, size_t rows) {
    counts->runs += rows;
    counts->units += rows * (p->inputs / p->unit);
    counts->active += (uint64_t)rows * p->inputs * p->positions;
}

static uint64_t units_with_any(const mf_product *p, const uint8_t *flags) {
    uint64_t units = 0;
    for (uint32_t start = 0; start < p->inputs; start += p->unit) {
        uint8_t any = 0;
        for (uint32_t i = 0; i < p->unit; i++) {
            any |= flags[start + i];
        }
        units += any;
    }
    return units;
}

/* One run with the elements of the vector (or map) whose sign says so: 1 at k / block. */
static void count_sent(const mf_product *p, const uint8_t *sent, uint32_t block, uint8_t *flags,
                       mf_counts *counts) {
    uint64_t active = 0;
    counts->runs++;
    if (!p->taps) {
        for (uint32_t i = 0; i < p->inputs; i++) {
            flags[i] = sent[block == 1 ? i : i / block];
            active += flags[i];
        }
    } else {
        const int32_t *tap = p->taps;
        memset(flags, 0, p->inputs);
        for (uint32_t k = 0; k < p->positions; k++) {
            for (uint32_t i = 0; i < p->inputs; i++, tap++) {
                const uint8_t one = *tap >= 0 ? sent[(uint32_t)*tap / block] : 0;
                flags[i] |= one;
                active += one;
            }
        }
    }
    counts->active += active;
    counts->units += p->unit == 1 && !p->taps ? active : units_with_any(p, flags);
}

/* The same for values of which those are sent that are not 0. */
#define MF_COUNT_NONZERO(name, type)                                                               \
    static void name(const mf_product *p, const type *x, uint8_t *flags, mf_counts *counts) {      \
        uint64_t active = 0;                                                                       \
        memset(flags, 0, p->inputs);                                                               \
        for (uint32_t k = 0; k < p->positions; k++) {                                              \
            for (uint32_t i = 0; i < p->inputs; i++) {                                             \
                const int32_t at = p->taps ? p->taps[(size_t)k * p->inputs + i] : (int32_t)i;      \
                const uint8_t one = at >= 0 && x[at] != 0;                                         \
                flags[i] |= one;                                                                   \
                active += one;                                                                     \
            }                                                                                      \
        }                                                                                          \
        counts->runs++;                                                                            \
        counts->active += active;                                                                  \
        counts->units += units_with_any(p, flags);                                                 \
    }

MF_COUNT_NONZERO(count_nonzero_i16, int16_t)
MF_COUNT_NONZERO(count_nonzero_f32, float)

/* --- linear -------------------------------------------------------------------------------------- */
#define MF_IS_FEW(name, type)                                                                      \
    static int name(const type *x, size_t n) {                                                     \
        size_t found = 0;                                                                          \
        for (size_t i = 0; i < n; i++) {                                                           \
            found += x[i] != 0;                                                                    \
        }                                                                                          \
        return found * FEW < n;                                                                    \
    }

MF_IS_FEW(few, int16_t)
MF_IS_FEW(few_f32, float)

/* Positions first ... first + count - 1 of a map, one row a position. */
#define MF_GATHER(name, type)                                                                      \
    static void name(const mf_product *p, const type *map, uint32_t first, uint32_t count,         \
                     type *seen) {                                                                 \
        const int32_t *taps = p->taps + (size_t)first * p->inputs;                                 \
        for (size_t i = 0; i < (size_t)count * p->inputs; i++) {                                   \
            seen[i] = taps[i] < 0 ? (type)0 : map[taps[i]];                                        \
        }                                                                                          \
    }

MF_GATHER(gather_i16, int16_t)
MF_GATHER(gather_i32, int32_t)
MF_GATHER(gather_f32, float)

/* Results of positions, one row a position, into [out][positions]. */
#define MF_SCATTER(name, type)                                                                     \
    static void name(const mf_product *p, const type *found, uint32_t first, uint32_t count,       \
                     type *acc) {                                                                  \
        for (uint32_t r = 0; r < p->out; r++) {                                                    \
            for (uint32_t k = 0; k < count; k++) {                                                 \
                acc[(size_t)r * p->positions + first + k] = found[(size_t)k * p->out + r];         \
            }                                                                                      \
        }                                                                                          \
    }

MF_SCATTER(scatter_i32, int32_t)
MF_SCATTER(scatter_f32, float)

/* The fast product at all positions of one map, TILE at once. */
#define MF_WINDOWS(name, type, result, gather, scatter, multiply)                                  \
    static void name(const mf_product *p, const type *map, mf_pieces s, result *acc) {             \
        for (uint32_t first = 0; first < p->positions; first += TILE) {                            \
            const uint32_t left = p->positions - first, count = left < TILE ? left : TILE;         \
            gather(p, map, first, count, (type *)s.seen);                                          \
            multiply(p, (const type *)s.seen, count, (result *)s.found, s.packed);                 \
            scatter(p, (const result *)s.found, first, count, acc);                                \
        }                                                                                          \
    }

#define MF_MULTIPLY_I32(p, seen, count, found, scratch)                                            \
    mf_packed_linear((p)->packed, seen, (p)->inputs, count, (const int32_t *)(p)->bias, found,     \
                     (p)->out, scratch)
#define MF_MULTIPLY_F32(p, seen, count, found, scratch)                                            \
    mf_packed_linear_f32((p)->packed, seen, (p)->inputs, count, (const float *)(p)->bias, found,   \
                         (p)->out)

MF_WINDOWS(windows_i32, int16_t, int32_t, gather_i16, scatter_i32, MF_MULTIPLY_I32)
MF_WINDOWS(windows_f32, float, float, gather_f32, scatter_f32, MF_MULTIPLY_F32)

#define MF_AT(c, run, which, k, row, type)                                                         \
    ((type *)(void *)((run)->memory + (c)->which[k].offset + (row) * (c)->which[k].stride))

static void count_linear(const mf_call *c, const mf_run *run, size_t first, size_t rows, uint8_t *flags) {
    mf_counts *counts = run->counts + c->site;
    if (!c->skip_zeros) {
        count_all(c->product, counts, rows);
        return;
    }
    for (size_t i = first; i < first + rows; i++) {
        if (c->kernel == MF_LINEAR_F32) {
            count_nonzero_f32(c->product, MF_AT(c, run, in, 0, i, const float), flags, counts);
        } else {
            count_nonzero_i16(c->product, MF_AT(c, run, in, 0, i, const int16_t), flags, counts);
        }
    }
}

/* Sums of 32 bits, or of 64, which have no fast form. */
void mf_product_linear(const mf_call *c, const mf_run *run, size_t first, size_t rows) {
    const mf_product *p = c->product;
    const mf_pieces s = pieces(p, run->scratch);
    const int wide = c->kernel == MF_LINEAR_I64, fast = !wide && p->packed;
    if (run->counts) {
        count_linear(c, run, first, rows, s.flags);
    }
    if (fast && !p->taps && !c->skip_zeros) {
        const int16_t *x = MF_AT(c, run, in, 0, first, const int16_t);
        int32_t *acc = MF_AT(c, run, out, 0, first, int32_t);
        mf_packed_linear(p->packed, x, c->in[0].stride / sizeof *x, rows, (const int32_t *)p->bias, acc,
                         c->out[0].stride / sizeof *acc, s.packed);
        return;
    }
    for (size_t i = first; i < first + rows; i++) {
        const int16_t *x = MF_AT(c, run, in, 0, i, const int16_t);
        void *acc = MF_AT(c, run, out, 0, i, void);
        const int by_columns = fast && c->skip_zeros && p->matrix.by_columns && few(x, c->in_size);
        if (fast && !by_columns && p->taps) {
            windows_i32(p, x, s, (int32_t *)acc);
        } else if (fast && !by_columns) {
            mf_packed_linear(p->packed, x, 0, 1, (const int32_t *)p->bias, (int32_t *)acc, 0, s.packed);
        } else if (wide && p->taps) {
            mf_linear_windows_i64(&p->matrix, p->taps, p->positions, x, (int16_t *)s.seen,
                                  (const int64_t *)p->bias, (int64_t *)acc);
        } else if (wide) {
            mf_linear_i64(&p->matrix, x, (const int64_t *)p->bias, (int64_t *)acc);
        } else if (p->taps) {
            mf_linear_windows_i32(&p->matrix, p->taps, p->positions, x, (int16_t *)s.seen,
                                  (const int32_t *)p->bias, (int32_t *)acc);
        } else {
            mf_linear_i32(&p->matrix, x, (const int32_t *)p->bias, (int32_t *)acc);
        }
    }
}

/* Columns of inputs that are 0 are not read. */
static void linear_nonzero_f32(const mf_product *p, const float *x, mf_pieces s, float *y) {
    const float *bias = p->bias;
    uint32_t *places = (uint32_t *)(void *)s.flags;
    if (!p->taps) {
        mf_packed_nonzero_f32(p->packed, x, bias, y, places);
        return;
    }
    float *seen = (float *)(void *)s.seen, *found = (float *)(void *)s.found;
    for (uint32_t k = 0; k < p->positions; k++) {
        gather_f32(p, x, k, 1, seen);
        mf_packed_nonzero_f32(p->packed, seen, bias, found, places);
        scatter_f32(p, found, k, 1, y);
    }
}

void mf_product_linear_f32(const mf_call *c, const mf_run *run, size_t first, size_t rows) {
    const mf_product *p = c->product;
    const mf_pieces s = pieces(p, run->scratch);
    if (run->counts) {
        count_linear(c, run, first, rows, s.flags);
    }
    const float *x = MF_AT(c, run, in, 0, first, const float);
    float *y = MF_AT(c, run, out, 0, first, float);
    const size_t x_stride = c->in[0].stride / sizeof *x, y_stride = c->out[0].stride / sizeof *y;
    if (!p->taps && !c->skip_zeros) {
        mf_packed_linear_f32(p->packed, x, x_stride, rows, (const float *)p->bias, y, y_stride);
        return;
    }
    for (size_t i = 0; i < rows; i++, x += x_stride, y += y_stride) {
        if (c->skip_zeros && few_f32(x, c->in_size)) {
            linear_nonzero_f32(p, x, s, y);
        } else if (p->taps) {
            windows_f32(p, x, s, y);
        } else {
            mf_packed_linear_f32(p->packed, x, 0, 1, (const float *)p->bias, y, 0);
        }
    }
}

/* --- accumulate ---------------------------------------------------------------------------------- */
/* The fast product with differences at every position, each with its own column of the total. */
static void windows_accumulate(const mf_product *p, const int32_t *delta, mf_pieces s,
                               int32_t *total) {
    int32_t *seen = (int32_t *)s.seen, *found = (int32_t *)s.found;
    for (uint32_t k = 0; k < p->positions; k++) {
        uint8_t any = 0;
        gather_i32(p, delta, k, 1, seen);
        for (uint32_t i = 0; i < p->inputs; i++) {
            any |= seen[i] != 0;
        }
        if (!any) {
            continue;
        }
        for (uint32_t r = 0; r < p->out; r++) {
            found[r] = total[(size_t)r * p->positions + k];
        }
        mf_packed_accumulate(p->packed, seen, found, s.packed);
        for (uint32_t r = 0; r < p->out; r++) {
            total[(size_t)r * p->positions + k] = found[r];
        }
    }
}

static void count_accumulate(const mf_call *c, const mf_run *run, size_t row, uint8_t *flags) {
    if (run->counts) {
        count_sent(c->product, MF_AT(c, run, in, 1, row, const uint8_t), (uint32_t)c->block, flags,
                   run->counts + c->site);
    }
}

void mf_product_accumulate(const mf_call *c, const mf_run *run, size_t first, size_t rows) {
    const mf_product *p = c->product;
    const mf_pieces s = pieces(p, run->scratch);
    const int wide = c->kernel == MF_ACCUMULATE_I64, fast = !wide && p->packed;
    for (size_t i = first; i < first + rows; i++) {
        const int32_t *delta = MF_AT(c, run, in, 0, i, const int32_t);
        const uint8_t *mask = MF_AT(c, run, in, 1, i, const uint8_t);
        void *total = MF_AT(c, run, out, 0, i, void);
        count_accumulate(c, run, i, s.flags);
        if (fast && p->taps) {
            windows_accumulate(p, delta, s, (int32_t *)total);
        } else if (fast) {
            mf_packed_accumulate(p->packed, delta, (int32_t *)total, s.packed);
        } else if (wide && p->taps) {
            mf_accumulate_windows_i64(&p->matrix, p->taps, p->positions, delta, (int32_t *)s.seen,
                                      (int64_t *)total);
        } else if (wide) {
            mf_accumulate_i64(&p->matrix, delta, mask, (uint32_t)c->block, (int64_t *)total);
        } else if (p->taps) {
            mf_accumulate_windows_i32(&p->matrix, p->taps, p->positions, delta, (int32_t *)s.seen,
                                      (int32_t *)total);
        } else {
            mf_accumulate_i32(&p->matrix, delta, mask, (uint32_t)c->block, (int32_t *)total);
        }
    }
}

/* --- refine -------------------------------------------------------------------------------------- */
/* Of the inputs of a product, as many as its share of the terms. */
static void count_terms(mf_counts *counts, uint64_t inputs, uint32_t terms, uint32_t count) {
    counts->runs++;
    counts->units += terms;
    counts->active += inputs * terms / count;
}

void mf_product_refine(const mf_call *c, const mf_run *run, size_t first, size_t rows,
                       const mf_elementwise *e) {
    const mf_refinement *r = c->refinement;
    const void *bias = c->product->bias;
    for (size_t i = first; i < first + rows; i++) {
        mf_refine_budget budget = mf_refine_share(run->budget, r->number, r->count, r->share);
        const void *x = MF_AT(c, run, in, 0, i, const void);
        void *y = MF_AT(c, run, out, 0, i, void);
        if (c->kernel == MF_REFINE_F32 && run->x && c->in_place) {
            const mf_halves halves = {run->x, (const float *)x, c->in_place};
            e->refine_halves_f32(&r->terms, &halves, (const float *)bias, (float *)y, &budget);
        } else if (c->kernel == MF_REFINE_F32) {
            e->refine_f32(&r->terms, (const float *)x, (const float *)bias, (float *)y, &budget);
        } else if (c->kernel == MF_REFINE_I32) {
            e->refine_i32(&r->stored, (const int16_t *)x, (const int32_t *)bias, (int32_t *)y,
                          &budget);
        } else {
            mf_refine_i64(&r->stored, (const int16_t *)x, (const int64_t *)bias, (int64_t *)y,
                          &budget);
        }
        mf_refine_used(run->budget, r->number, &budget);
        if (run->counts) {
            count_terms(run->counts + r->inner_site, c->in_size, budget.used, r->count);
            count_terms(run->counts + c->site, r->count, budget.used, r->count);
        }
    }
}
