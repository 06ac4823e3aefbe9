/* Products of float32 weights on AVX-512: up to 8 tiles of 8 rows, two of them in a vector. */
#include "fast_avx512.h"

#ifdef MF_AVX512

/* Vectors of rows; the last may be half of one. */
enum { VECTORS = MF_PANEL_F32 * MF_TILE_F32 / 16 };

MF_INLINE __m512 load_tiles(const float *w, int tiles) {
    return tiles == 1 ? _mm512_castps256_ps512(_mm256_loadu_ps(w)) : _mm512_loadu_ps(w);
}

/* Of one step, columns take turns in two sums, as in fast_avx512.c. */
MF_INLINE void multiply_column(const float *w, const float *x, size_t x_stride, __m512 *sum,
                               int tiles, int steps, int turn) {
    const int vectors = (tiles + 1) / 2, sums = steps == 1 ? 2 : 1;
    __m512 in[4];
    MF_UNROLL
    for (int s = 0; s < steps; s++) {
        in[s] = _mm512_set1_ps(x[(size_t)s * x_stride]);
    }
    MF_UNROLL
    for (int v = 0; v < vectors; v++) {
        const __m512 rows = load_tiles(w + 16 * v, tiles - 2 * v);
        MF_UNROLL
        for (int s = 0; s < steps; s++) {
            __m512 *to = sum + (v * steps + s) * sums + turn;
            *to = _mm512_fmadd_ps(rows, in[s], *to);
        }
    }
}

/* `steps` steps of a panel. */
MF_INLINE void panel(const float *w, uint32_t inputs, const float *x, size_t x_stride,
                     const float *bias, float *y, size_t y_stride, size_t rows, int tiles,
                     int steps) {
    const int vectors = (tiles + 1) / 2, sums = steps == 1 ? 2 : 1;
    const size_t column = (size_t)(tiles * MF_TILE_F32);
    __m512 sum[VECTORS * 4];
    MF_UNROLL
    for (int i = 0; i < vectors * steps * sums; i++) {
        sum[i] = _mm512_setzero_ps();
    }
    uint32_t left = inputs;
    for (; left >= (uint32_t)sums; left -= (uint32_t)sums) {
        MF_UNROLL
        for (int turn = 0; turn < sums; turn++, w += column, x++) {
            multiply_column(w, x, x_stride, sum, tiles, steps, turn);
        }
    }
    if (left) {
        multiply_column(w, x, x_stride, sum, tiles, steps, 0);
    }
    MF_UNROLL
    for (int i = 0; i < vectors * steps; i++) {
        const size_t row = (size_t)(i / steps) * 16;
        const __mmask16 keep = first_16(rows - row);
        __m512 v = sums == 2 ? _mm512_add_ps(sum[2 * i], sum[2 * i + 1]) : sum[i];
        if (bias) {
            v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(keep, bias + row));
        }
        _mm512_mask_storeu_ps(y + (size_t)(i % steps) * y_stride + row, keep, v);
    }
}

/* One panel of all steps, so that its weights come from a near cache for all but the first. */
MF_INLINE void steps_of(const float *w, uint32_t inputs, const float *x, size_t x_stride,
                        size_t steps, const float *bias, float *y, size_t y_stride, size_t rows,
                        int tiles) {
    size_t s = 0;
    for (; s + 4 <= steps; s += 4) {
        panel(w, inputs, x + s * x_stride, x_stride, bias, y + s * y_stride, y_stride, rows, tiles,
              4);
    }
    for (; s < steps; s++) {
        panel(w, inputs, x + s * x_stride, 0, bias, y + s * y_stride, 0, rows, tiles, 1);
    }
}

void mf_avx512_linear_f32(const float *tiles, uint32_t out, uint32_t inputs, const float *x,
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

#endif
