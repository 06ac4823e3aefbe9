/* Executor of plans (src/modelflex/core/plan.py): calls of kernels on one block of memory.
 *
 * The caller owns all memory. Nothing here is checked: native_plan.cpp proves, when a plan is loaded, that every
 * call stays within its buffers. */
#ifndef MODELFLEX_PLAN_H
#define MODELFLEX_PLAN_H

#include <stddef.h>
#include <stdint.h>

#include "matrix.h"
#include "packed.h"
#include "piecewise.h"
#include "refine_codes.h"

#ifdef __cplusplus
extern "C" {
#endif

/* In the order of KERNELS in src/modelflex/core/plan.py, but for the last. */
typedef enum {
    MF_QUANTIZE,
    MF_LINEAR_I32,
    MF_LINEAR_I64,
    MF_LINEAR_F32,
    MF_DELTA_ENCODE,
    MF_ACCUMULATE_I32,
    MF_ACCUMULATE_I64,
    MF_RESCALE_I32,
    MF_RESCALE_I64,
    MF_ADD,
    MF_SUB,
    MF_MUL,
    MF_SIGMOID,
    MF_TANH,
    MF_PIECEWISE,
    MF_RELU,
    MF_ONE_HOT,
    MF_ADD_F32,
    MF_SUB_F32,
    MF_MUL_F32,
    MF_SIGMOID_F32,
    MF_TANH_F32,
    MF_RELU_F32,
    MF_ONE_HOT_F32,
    MF_COPY,
    MF_REFINE_I32,
    MF_REFINE_I64,
    MF_REFINE_F32,
    MF_KERNELS,
    /* What is made of other calls when a plan is loaded (native_gates.cpp): inputs are the sums of both products and
     * the old state, outputs the new one and, of LSTM, out. */
    MF_LSTM = MF_KERNELS,
    MF_GRU
} mf_kernel;

/* What is multiplied at a site. */
typedef struct {
    mf_matrix matrix;     /* of integer programs */
    const void *packed;   /* its fast form (packed.h), of floats always; NULL: there is none */
    const void *bias;     /* [out] in the type of the accumulator, or NULL */
    const int32_t *taps;  /* [positions][inputs] as in matrix.h; NULL: multiplied once */
    uint32_t out, inputs; /* of the matrix */
    uint32_t positions;   /* 1 without taps */
    uint32_t unit;        /* inputs that share a fetch unit */
} mf_product;

/* What a site did; core/profile.py says what is counted. */
typedef struct {
    uint64_t runs, units, active;
} mf_counts;

/* What a progressive product computes with; of floats `terms`, else `stored`. */
typedef struct {
    mf_terms terms;
    mf_stored_terms stored;
    uint32_t count;       /* terms in all */
    uint32_t number;      /* of budgets, among all refinements of a step */
    uint32_t share;       /* of the time that is left (mf_refine_share) */
    uint32_t inner_site;  /* of v; the call's site is that of u */
} mf_refinement;

/* Where a row of a buffer lies in the block of memory, and how far the next is, in bytes; 0 where there is one for all rows. */
typedef struct {
    size_t offset, stride;
} mf_place;

typedef struct {
    mf_kernel kernel;
    uint32_t site;            /* of the product, also of delta_encode */
    uint32_t size;            /* elements of a row of the first output */
    uint32_t in_size;         /* elements of a row of the first input */
    int joined;               /* rows of all operands follow each other without gaps */
    mf_place in[3], out[3];
    const mf_product *product;
    const int32_t *constants; /* mu of rescale, thresholds of delta_encode, the table of tanh */
    uint32_t constant_count;
    int32_t mu, shift, bits, block, overshoot;
    int skip_zeros;
    uint32_t item_bytes;      /* of copy */
    mf_piecewise table;
    const mf_gates *gates;
    const mf_refinement *refinement;
    uint32_t in_place;        /* of refine_f32: how many of its first inputs lie in the run's `x`, if it has one */
} mf_call;

/* A carried value: `bytes` of `init` (or zeros) at reset. */
typedef struct {
    mf_place place;
    size_t bytes;
    const void *init;
} mf_slot;

/* A stage: `ahead` calls are made for all rows at once, then `step` calls row after row. */
typedef struct {
    const mf_call *calls;
    size_t ahead, step;
    const mf_slot *slots;
    size_t slot_count;
    int once; /* runs after the last step from a reset state */
    const mf_elementwise *kernels; /* of the instruction set that the products are packed for */
} mf_stage;

/* Where the codes that products see are kept (those sent, under delta): row i of the plan goes to row rows[i] of
 * codes[site], [...][inputs] each. */
typedef struct {
    int16_t *const *codes;
    const size_t *rows;
} mf_trace;

/* `scratch` has mf_product_scratch() bytes of the neediest product and is 64-byte aligned, as `memory` is; `counts` is
 * one entry a site, or NULL; `trace` may be NULL, and so may `budget`: then progressive products have all terms. */
typedef struct {
    uint8_t *memory;
    uint8_t *scratch;
    mf_counts *counts;
    const mf_trace *trace;
    const mf_budget *budget;
    const float *x; /* of one row; NULL: all inputs are in memory */
} mf_run;

size_t mf_product_scratch(const mf_product *p);

/* Run a stage on the rows first ... first + rows - 1. */
void mf_run_stage(const mf_stage *stage, const mf_run *run, size_t first, size_t rows);

/* The carried values of those rows as they are before the first step. */
void mf_reset_stage(const mf_stage *stage, uint8_t *memory, size_t first, size_t rows);

int mf_finite_f32(const float *x, size_t n);
int mf_finite_f64(const double *x, size_t n);

/* Finite inputs as fx: sat(rint(x * 2^16)), ties to even; or as floats. */
void mf_enter_fx_f32(const float *x, size_t n, int32_t *fx);
void mf_enter_fx_f64(const double *x, size_t n, int32_t *fx);
void mf_enter_f32_f64(const double *x, size_t n, float *y);

/* Results as real numbers: fx * 2^-16 (exact in double, rounded to nearest in float), or floats. */
void mf_leave_fx_f32(const int32_t *fx, size_t n, float *y);
void mf_leave_fx_f64(const int32_t *fx, size_t n, double *y);
void mf_leave_f32_f64(const float *x, size_t n, double *y);

/* Products of rows (product.c). Strides are in elements. */
void mf_product_linear(const mf_call *c, const mf_run *run, size_t first, size_t rows);
void mf_product_linear_f32(const mf_call *c, const mf_run *run, size_t first, size_t rows);
void mf_product_accumulate(const mf_call *c, const mf_run *run, size_t first, size_t rows);
void mf_product_refine(const mf_call *c, const mf_run *run, size_t first, size_t rows,
                       const mf_elementwise *e);

#ifdef __cplusplus
}
#endif

#endif
