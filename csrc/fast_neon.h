/* Shared by the files of NEON kernels, for 64-bit ARM with dot products. */
#ifndef MODELFLEX_FAST_NEON_H
#define MODELFLEX_FAST_NEON_H

#include "packed_kernels.h"

#ifdef __ARM_FEATURE_DOTPROD /* files are empty where they are compiled without the flags of their set */

#include <arm_neon.h>
#include <string.h>

#define MF_INLINE static inline __attribute__((always_inline))

void mf_neon_add_columns(const mf_packed *p, const mf_column_run *run, int32_t *total);
void mf_neon_linear_f32(const float *tiles, uint32_t out, uint32_t inputs, const float *x,
                        size_t x_stride, size_t steps, const float *bias, float *y,
                        size_t y_stride);
void mf_neon_sigmoid_f32(const float *x, size_t n, float *out);
void mf_neon_tanh_f32(const float *x, size_t n, float *out);
extern const mf_elementwise mf_neon_elementwise;

#endif

#endif
