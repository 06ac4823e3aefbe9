/* Where no fast instruction set is known: products by matrix.h, elementwise kernels of reference. */
#include "elementwise.h"
#include "elementwise_f32.h"
#include "packed_kernels.h"

static void linear_f32(const float *tiles, uint32_t out, uint32_t inputs, const float *x,
                       size_t x_stride, size_t steps, const float *bias, float *y,
                       size_t y_stride) {
    const size_t height = MF_TILE_F32 * MF_PANEL_F32;
    const size_t all = mf_round_up(out, MF_TILE_F32);
    for (size_t s = 0; s < steps; s++, x += x_stride, y += y_stride) {
        for (size_t row = 0; row < out; row += height) {
            const size_t wide = all - row < height ? all - row : height;
            const size_t rows = out - row < height ? out - row : height;
            const float *w = tiles + row * inputs;
            for (size_t r = 0; r < rows; r++) {
                float sum = bias ? bias[row + r] : 0.0f;
                for (size_t j = 0; j < inputs; j++) {
                    sum += w[j * wide + r] * x[j];
                }
                y[row + r] = sum;
            }
        }
    }
}

static const mf_elementwise elementwise = {
    .quantize = mf_quantize,
    .rescale_i32 = mf_rescale_i32,
    .rescale_i64 = mf_rescale_i64,
    .add = mf_add,
    .sub = mf_sub,
    .mul = mf_mul,
    .sigmoid = mf_sigmoid_array,
    .tanh = mf_tanh_array,
    .piecewise = mf_piecewise_array,
    .delta_encode = mf_delta_encode,
    .add_f32 = mf_add_f32,
    .sub_f32 = mf_sub_f32,
    .mul_f32 = mf_mul_f32,
    .sigmoid_f32 = mf_sigmoid_f32,
    .tanh_f32 = mf_tanh_f32,
    .lstm = mf_lstm,
    .gru = mf_gru,
    .refine_f32 = mf_refine_f32,
    .refine_i32 = mf_refine_i32,
};

const mf_instructions mf_portable = {
    .name = "portable",
    .tile_rows = 8,
    .linear_f32 = linear_f32,
    .elementwise = &elementwise,
};
