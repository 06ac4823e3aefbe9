/* Products of float32 weights and their activation functions on NEON: up to 8 tiles of 8 rows, two vectors
 * each. */
#include "fast_neon.h"

#ifdef __ARM_FEATURE_DOTPROD

/* Of a few tiles, columns take turns in two sums: a single one would wait for the last result. */
MF_INLINE void panel(const float *w, uint32_t inputs, const float *x, const float *bias, float *y,
                     size_t rows, int tiles) {
    const int vectors = 2 * tiles, turns = tiles <= 4 ? 2 : 1;
    float32x4_t sum[2 * MF_PANEL_F32];
    MF_UNROLL
    for (int i = 0; i < vectors * turns; i++) {
        sum[i] = vdupq_n_f32(0.0f);
    }
    uint32_t left = inputs;
    for (; left >= (uint32_t)turns; left -= (uint32_t)turns, x += turns) {
        MF_UNROLL
        for (int i = 0; i < vectors * turns; i++, w += 4) {
            sum[i] = vfmaq_n_f32(sum[i], vld1q_f32(w), x[i / vectors]);
        }
    }
    if (left) {
        MF_UNROLL
        for (int i = 0; i < vectors; i++, w += 4) {
            sum[i] = vfmaq_n_f32(sum[i], vld1q_f32(w), x[0]);
        }
    }
    MF_UNROLL
    for (int i = 0; i < vectors; i++) {
        const size_t row = (size_t)i * 4;
        const float32x4_t v = turns == 2 ? vaddq_f32(sum[i], sum[vectors + i]) : sum[i];
        if (row + 4 <= rows) {
            vst1q_f32(y + row, bias ? vaddq_f32(v, vld1q_f32(bias + row)) : v);
            continue;
        }
        float some[4];
        vst1q_f32(some, v);
        for (size_t r = 0; r < 4 && row + r < rows; r++) {
            y[row + r] = some[r] + (bias ? bias[row + r] : 0.0f);
        }
    }
}

/* One panel of all steps, so that its weights come from a near cache for all but the first. */
MF_INLINE void steps_of(const float *w, uint32_t inputs, const float *x, size_t x_stride,
                        size_t steps, const float *bias, float *y, size_t y_stride, size_t rows,
                        int tiles) {
    for (size_t s = 0; s < steps; s++) {
        panel(w, inputs, x + s * x_stride, bias, y + s * y_stride, rows, tiles);
    }
}

void mf_neon_linear_f32(const float *tiles, uint32_t out, uint32_t inputs, const float *x,
                        size_t x_stride, size_t steps, const float *bias, float *y,
                        size_t y_stride) {
    const size_t height = MF_TILE_F32 * MF_PANEL_F32;
    for (size_t row = 0; row < out; row += height) {
        const size_t rows = out - row < height ? out - row : height;
        const float *w = tiles + row * inputs, *b = bias ? bias + row : NULL;
#define PANEL(n)                                                                                   \
    case n:                                                                                        \
        steps_of(w, inputs, x, x_stride, steps, b, y + row, y_stride, rows, n);                    \
        break;
        switch ((rows + MF_TILE_F32 - 1) / MF_TILE_F32) {
            PANEL(1)
            PANEL(2)
            PANEL(3)
            PANEL(4)
            PANEL(5)
            PANEL(6)
            PANEL(7)
            PANEL(8)
        default:
            break;
        }
#undef PANEL
    }
}

/* Calls `four` on four floats at a time; the remainder goes through a copy. */
MF_INLINE void map(const float *x, size_t n, float *out, float32x4_t (*four)(float32x4_t)) {
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        vst1q_f32(out + i, four(vld1q_f32(x + i)));
    }
    if (i < n) {
        float some[4] = {0.0f};
        memcpy(some, x + i, (n - i) * sizeof *some);
        vst1q_f32(some, four(vld1q_f32(some)));
        memcpy(out + i, some, (n - i) * sizeof *some);
    }
}

/* 2^n by its exponent times a Taylor polynomial on |r| <= ln(2)/2, whose remainder is below 6e-9. */
MF_INLINE float32x4_t four_exp(float32x4_t x) {
    static const float factors[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
    x = vminq_f32(vdupq_n_f32(87.0f), vmaxq_f32(vdupq_n_f32(-87.0f), x));
    const float32x4_t n = vrndnq_f32(vmulq_n_f32(x, 1.44269504f));
    /* ln(2) in two parts, the first of few bits */
    float32x4_t r = vfmsq_n_f32(x, n, 0.693359375f);
    r = vfmsq_n_f32(r, n, -2.12194440e-4f);
    float32x4_t y = vdupq_n_f32(1.0f / 5040);
    MF_UNROLL
    for (int i = 0; i < 7; i++) {
        y = vfmaq_f32(vdupq_n_f32(factors[i]), y, r);
    }
    const int32x4_t power = vshlq_n_s32(vcvtq_s32_f32(n), 23);
    return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(y), power));
}

MF_INLINE float32x4_t four_sigmoid(float32x4_t x) {
    const float32x4_t one = vdupq_n_f32(1.0f);
    return vdivq_f32(one, vaddq_f32(one, four_exp(vnegq_f32(x))));
}

MF_INLINE float32x4_t four_tanh(float32x4_t x) {
    return vfmaq_n_f32(vdupq_n_f32(-1.0f), four_sigmoid(vaddq_f32(x, x)), 2.0f);
}

void mf_neon_sigmoid_f32(const float *x, size_t n, float *out) { map(x, n, out, four_sigmoid); }

void mf_neon_tanh_f32(const float *x, size_t n, float *out) { map(x, n, out, four_tanh); }

#endif
