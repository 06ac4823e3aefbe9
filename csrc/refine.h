/* Progressive products: y = bias + the first terms of a sum of rank 1, until a budget is used up.
 *
 * Term n adds, for every group g of neighbouring rows, (row n * groups + g of v) . x + c[n * groups + g] times what u
 * holds of it in those rows. Portable reference; the caller owns all buffers, outputs must not overlap other arrays.
 * Terms of integers: refine_codes.h.
 */
#ifndef MODELFLEX_REFINE_H
#define MODELFLEX_REFINE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef uint64_t mf_clock(void *context);

/* What one refinement may take. The clock is read before every term: none begins when it says `deadline` or more. A
 * clock may jump, forwards or backwards: there are never more terms than `limit`. */
typedef struct {
    uint32_t limit;
    uint32_t used;     /* written: terms that were computed */
    mf_clock *clock;   /* NULL: no deadline */
    void *context;
    uint64_t deadline; /* in the clock's ticks */
} mf_refine_budget;

/* What a step may take that has several refinements, numbered in the order in which they run. */
typedef struct {
    const uint32_t *limits;   /* of every refinement; NULL: all terms */
    uint32_t *used;           /* of every refinement; written */
    const uint64_t *reserves; /* ticks kept for what follows a refinement; NULL: none */
    mf_clock *clock;          /* NULL: no deadline */
    void *context;
    uint64_t deadline;
    const uint32_t *shares;   /* of every refinement, in the place of those that it comes with; NULL: those */
} mf_budget;

/* The budget of refinement `number`, which has so many terms. `share`, from 0 to MF_WHOLE, is its part of the time that
 * is left for itself and later refinements. */
enum { MF_WHOLE = 65536 };
mf_refine_budget mf_refine_share(const mf_budget *b, uint32_t number, uint32_t terms, uint32_t share);

/* Terms of floats. */
typedef struct {
    uint32_t rows, inputs, terms;
    uint32_t groups;       /* of equally many rows */
    uint32_t kept, width;  /* blocks of a row of v, and numbers of a block, which divide the inputs */
    const float *u;        /* [terms][rows] */
    const float *v;        /* [terms * groups][kept * width] */
    const uint32_t *index; /* [terms * groups][kept]: numbers of blocks; NULL: dense, kept * width inputs */
    const float *c;        /* [terms * groups]; NULL: zeros */
} mf_terms;

/* Sums begin with c. Number i of a row of v times its input goes to the sum i mod 8; these are added i and i + 4, i and i + 2, i and i + 1.
 * Terms are added to y in their order, the bias (0 if NULL) first. */
void mf_refine_f32(const mf_terms *t, const float *x, const float *bias, float *y,
                   mf_refine_budget *b);

/* The same as refinement `number` of a step; see mf_refine_share. */
void mf_refine_within_f32(const mf_terms *t, const float *x, const float *bias, float *y,
                          const mf_budget *b, uint32_t number, uint32_t share);

/* An input in two places: its elements below `split` lie in `head`, the others in `rest`, where both begin with its first. */
typedef struct {
    const float *head, *rest;
    uint32_t split;
} mf_halves;

/* Says what refinement `number` took. */
static inline void mf_refine_used(const mf_budget *b, uint32_t number, const mf_refine_budget *own) {
    if (b) {
        b->used[number] = own->used;
    }
}

/* Whether a term may begin. */
static inline int mf_may_refine(const mf_refine_budget *b) {
    return b->used < b->limit && (!b->clock || b->clock(b->context) < b->deadline);
}

#ifdef __cplusplus
}
#endif

#endif
