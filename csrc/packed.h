/* Fast products and elementwise kernels of the instruction set that the CPU has, chosen at run time.
 *
 * Weights are packed once, at load, into the order in which a kernel reads them. Results equal those of
 * matrix.h and elementwise.h bit for bit in integers. The caller owns all memory; packed weights and
 * scratch are 64-byte aligned.
 */
#ifndef MODELFLEX_PACKED_H
#define MODELFLEX_PACKED_H

#include <stddef.h>
#include <stdint.h>

#include "gates.h"
#include "matrix.h"
#include "piecewise.h"
#include "refine_codes.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of a packed matrix for inputs of x_bits bits; 0 if there is no fast product for this pair on this
 * CPU, where matrix.h serves. */
size_t mf_packed_bytes(const mf_matrix *m, int x_bits);
void mf_pack(const mf_matrix *m, int x_bits, void *packed);
/* Bytes of scratch that any call with this matrix needs. */
size_t mf_packed_scratch(const void *packed);
/* acc[t][out] = bias + A x[t] for t < steps; strides count elements, bias NULL is 0. The caller has proven
 * that int32 holds all sums of terms. acc may be the bias where steps is 1. */
void mf_packed_linear(const void *packed, const int16_t *x, size_t x_stride, size_t steps,
                      const int32_t *bias, int32_t *acc, size_t acc_stride, void *scratch);
/* total[out] += A delta, as mf_accumulate_i32: needs no mask, as what one leaves out is 0. */
void mf_packed_accumulate(const void *packed, const int32_t *delta, int32_t *total, void *scratch);

/* The same of float32 weights [out][inputs]; any order of summation. bytes is never 0. */
size_t mf_packed_f32_bytes(uint32_t out, uint32_t inputs);
void mf_pack_f32(const float *w, uint32_t out, uint32_t inputs, void *packed);
void mf_packed_linear_f32(const void *packed, const float *x, size_t x_stride, size_t steps,
                          const float *bias, float *y, size_t y_stride);
/* The same for one x, without reading columns of inputs that are 0; places[inputs] is scratch. */
void mf_packed_nonzero_f32(const void *packed, const float *x, const float *bias, float *y,
                           uint32_t *places);

/* The integer kernels have the contracts of elementwise.h and piecewise.h, where 0 <= mu < 2^15. rescale's
 * mu has one entry for each of mu_count equal groups of consecutive columns. Those of floats are within
 * 4e-7 of the real functions. */
typedef struct {
    void (*quantize)(const int32_t *v, size_t n, int32_t mu, int s, int bits, int16_t *codes);
    void (*rescale_i32)(const int32_t *acc, size_t rows, size_t columns, const int32_t *mu,
                        size_t mu_count, int s, int32_t *fx);
    void (*rescale_i64)(const int64_t *acc, size_t rows, size_t columns, const int32_t *mu,
                        size_t mu_count, int s, int32_t *fx);
    void (*add)(const int32_t *a, const int32_t *b, size_t n, int32_t *out);
    void (*sub)(const int32_t *a, const int32_t *b, size_t n, int32_t *out);
    void (*mul)(const int32_t *a, const int32_t *b, size_t n, int32_t *out);
    void (*sigmoid)(const int32_t *x, size_t n, const int32_t *table, int32_t *out);
    void (*tanh)(const int32_t *x, size_t n, const int32_t *table, int32_t *out);
    void (*piecewise)(const int32_t *x, size_t n, const mf_piecewise *table, int32_t *out);
    void (*delta_encode)(const int16_t *x, const int16_t *x_hat, size_t rows, size_t columns,
                         size_t block, const int32_t *theta, int overshoot, int bits,
                         int32_t *delta, uint8_t *mask, int16_t *sent);
    void (*add_f32)(const float *a, const float *b, size_t n, float *out);
    void (*sub_f32)(const float *a, const float *b, size_t n, float *out);
    void (*mul_f32)(const float *a, const float *b, size_t n, float *out);
    void (*sigmoid_f32)(const float *x, size_t n, float *out);
    void (*tanh_f32)(const float *x, size_t n, float *out);
    /* Those of refine.h; the order of sums of floats is free. */
    void (*refine_f32)(const mf_terms *t, const float *x, const float *bias, float *y,
                       mf_refine_budget *b);
    /* The same of halves whose split is a multiple of 8 and of the width, of places that ascend in every row; NULL: none. */
    void (*refine_halves_f32)(const mf_terms *t, const mf_halves *x, const float *bias, float *y,
                              mf_refine_budget *b);
    void (*refine_i32)(const mf_stored_terms *t, const int16_t *x, const int32_t *bias,
                       int32_t *acc, mf_refine_budget *b);
    int unpacks_terms; /* whether refine_i32 has a fast form of terms in 16 bits */
    /* mf_enter_fx_f32 of plan.h, and whether all x are finite; NULL: those of plan.h. */
    int (*enter_f32)(const float *x, size_t n, int32_t *fx);
    /* A copy, and whether all x are finite; NULL: none. */
    int (*copy_f32)(const float *x, size_t n, float *y);
    /* mf_finite_f32 of plan.h; NULL: that. */
    int (*finite_f32)(const float *x, size_t n);
    mf_lstm_kernel *lstm;
    mf_gru_kernel *gru;
} mf_elementwise;

/* The kernels of the chosen instruction set. */
const mf_elementwise *mf_elementwise_table(void);

/* The chosen instruction set: "avx512vnni", "avx2", "neon" or "portable". */
const char *mf_isa(void);
/* Choose no better one than `name` from now on; NULL is the best. Returns 0, or -1 where the CPU or the
 * build has not got it (nothing changes then). What is loaded stays with the set it was loaded for. Not to
 * be called while another thread packs. */
int mf_limit_isa(const char *name);

#ifdef __cplusplus
}
#endif

#endif
