/* Reference kernels of programs in floating point. Arrays are contiguous; the caller owns all buffers.
 * An output may be the same buffer as an input, but must not overlap one partially; the result of a
 * product must not overlap its inputs at all. */
#ifndef MODELFLEX_ELEMENTWISE_F32_H
#define MODELFLEX_ELEMENTWISE_F32_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void mf_add_f32(const float *a, const float *b, size_t n, float *out);
void mf_sub_f32(const float *a, const float *b, size_t n, float *out);
void mf_mul_f32(const float *a, const float *b, size_t n, float *out);
void mf_sigmoid_f32(const float *x, size_t n, float *out);
void mf_tanh_f32(const float *x, size_t n, float *out);
void mf_relu_f32(const float *x, size_t n, float *out);

/* out[i] is 1 where i is the whole number nearest to `index` (ties upwards), else 0. */
void mf_one_hot_f32(float index, size_t n, float *out);

/* y[out] = bias + A x, A [out][inputs] row by row; bias is 0 if NULL. */
void mf_linear_f32(const float *a, size_t out, size_t inputs, const float *bias, const float *x,
                   float *y);

/* The same at every position of a map: input j at position p is element taps[p][j] of the map, or 0
 * where that is negative; y is [out][positions]. */
void mf_linear_windows_f32(const float *a, size_t out, size_t inputs, const float *bias,
                           const int32_t *taps, size_t positions, const float *map, float *y);

#ifdef __cplusplus
}
#endif

#endif
