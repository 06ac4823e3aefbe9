/* Shared by the files of NEON kernels, for 64-bit ARM with dot products. */
#ifndef MODELFLEX_FAST_NEON_H
#define MODELFLEX_FAST_NEON_H

#include "packed_kernels.h"

#ifdef __ARM_FEATURE_DOTPROD /* files are empty where they are compiled without the flags of their set */

#include <arm_neon.h>
#include <string.h>

#define MF_INLINE static inline __attribute__((always_inline))

/* The lane is a constant, which the instruction wants as a literal. */
MF_INLINE int32x4_t mf_neon_dot(int32x4_t sum, int8x16_t w, int8x16_t x, int lane) {
    switch (lane) {
    case 0:
        return vdotq_laneq_s32(sum, w, x, 0);
    case 1:
        return vdotq_laneq_s32(sum, w, x, 1);
    case 2:
        return vdotq_laneq_s32(sum, w, x, 2);
    default:
        return vdotq_laneq_s32(sum, w, x, 3);
    }
}

/* The results of four rows of a step, or fewer at the end. */
MF_INLINE void mf_neon_store(const mf_packed *p, const mf_steps *steps, size_t step, size_t row,
                             int32x4_t sum) {
    int32_t *to = steps->acc + step * steps->acc_stride + row, some[4];
    const int32_t *bias = steps->bias ? steps->bias + row : NULL;
    sum = vaddq_s32(sum, vdupq_n_s32(steps->correction[step]));
    if (row + 4 <= p->rows) {
        vst1q_s32(to, bias ? vaddq_s32(sum, vld1q_s32(bias)) : sum);
        return;
    }
    vst1q_s32(some, sum);
    for (size_t i = 0; i < 4 && row + i < p->rows; i++) {
        to[i] = some[i] + (bias ? bias[i] : 0);
    }
}

void mf_neon_add_columns(const mf_packed *p, const mf_columns *listed, int32_t *total);
size_t mf_neon_find_active(const int32_t *delta, size_t n, size_t most, uint64_t *active);
int32_t mf_neon_prepare_circulant(const mf_packed *p, const int16_t *x, uint8_t *prepared);
void mf_neon_circulant(const mf_packed *p, const mf_steps *steps);
void mf_neon_linear_f32(const float *tiles, uint32_t out, uint32_t inputs, const float *x,
                        size_t x_stride, size_t steps, const float *bias, float *y,
                        size_t y_stride);
void mf_neon_sigmoid_f32(const float *x, size_t n, float *out);
void mf_neon_tanh_f32(const float *x, size_t n, float *out);
extern const mf_elementwise mf_neon_elementwise;

#endif

#endif
