/* Progressive products (refine.h) of codes, straight from the packed bits of stored matrices. */
#ifndef MODELFLEX_REFINE_CODES_H
#define MODELFLEX_REFINE_CODES_H

#include "matrix.h"
#include "refine.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The same codes in 16 bits, for fast forms, where int32 holds the sums of v. */
typedef struct {
    uint32_t kept, width;  /* as in mf_terms, but width 1 or 8 */
    const int16_t *v;      /* [terms * groups][kept * width] */
    const int16_t *u;      /* [terms][rows] */
    const uint32_t *index; /* [terms * groups][kept], or NULL: dense */
} mf_unpacked_terms;

/* Terms of stored matrices: the sum of v times codes and c is rescaled to fx (mf_rescale), quantised (mf_quantize) and
 * multiplied by a column of u. With all terms y has the bits that one product after the other gives. */
typedef struct {
    const mf_matrix *v;    /* [terms * groups][inputs]: dense or sparse, by rows */
    const mf_matrix *u;    /* [rows][terms]: dense, by columns */
    const int32_t *c_i32;  /* c in units of v's sums, in one type or the other; NULL: zeros */
    const int64_t *c_i64;
    uint32_t groups;
    const int32_t *mu;     /* of rescale, for equal groups of rows of v */
    uint32_t mu_count;
    int32_t shift;
    int32_t code_mu, code_shift, code_bits; /* of quantize */
    const mf_unpacked_terms *fast; /* NULL: none */
} mf_stored_terms;

/* The code that row `row` of v makes of the sum of its products. */
int16_t mf_refine_code(const mf_stored_terms *t, uint32_t row, int64_t sum);

/* Sums of v are 64 bits wide. Exact if every sum of u's products fits the type of acc. */
void mf_refine_i32(const mf_stored_terms *t, const int16_t *x, const int32_t *bias, int32_t *acc,
                   mf_refine_budget *b);
void mf_refine_i64(const mf_stored_terms *t, const int16_t *x, const int64_t *bias, int64_t *acc,
                   mf_refine_budget *b);

/* The same as refinement `number` of a step; see mf_refine_share. */
void mf_refine_within_i32(const mf_stored_terms *t, const int16_t *x, const int32_t *bias,
                          int32_t *acc, const mf_budget *b, uint32_t number, uint32_t share);
void mf_refine_within_i64(const mf_stored_terms *t, const int16_t *x, const int64_t *bias,
                          int64_t *acc, const mf_budget *b, uint32_t number, uint32_t share);

#ifdef __cplusplus
}
#endif

#endif
