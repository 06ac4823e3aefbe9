/* Products of float32 weights on AVX2 with FMA: tiles of 8 rows, up to 8 of them together. */
#include "fast_avx2.h"

#ifdef __AVX2__

MF_INLINE void panel(const float *w, uint32_t inputs, const float *x, const float *bias, float *y,
                     size_t rows, int tiles) {
    __m256 sum[MF_PANEL_F32];
#pragma GCC unroll 8
    for (int t = 0; t < tiles; t++) {
        sum[t] = _mm256_setzero_ps();
    }
    for (uint32_t j = 0; j < inputs; j++, w += tiles * MF_TILE_F32) {
        const __m256 v = _mm256_broadcast_ss(x + j);
#pragma GCC unroll 8
        for (int t = 0; t < tiles; t++) {
            sum[t] = _mm256_fmadd_ps(_mm256_loadu_ps(w + t * MF_TILE_F32), v, sum[t]);
        }
    }
#pragma GCC unroll 8
    for (int t = 0; t < tiles; t++) {
        const size_t row = (size_t)t * MF_TILE_F32;
        if (rows - row >= MF_TILE_F32) { /* masked stores are many times slower */
            const __m256 v = bias ? _mm256_add_ps(sum[t], _mm256_loadu_ps(bias + row)) : sum[t];
            _mm256_storeu_ps(y + row, v);
            continue;
        }
        const __m256i keep = first_lanes(rows - row);
        if (bias) {
            sum[t] = _mm256_add_ps(sum[t], _mm256_maskload_ps(bias + row, keep));
        }
        _mm256_maskstore_ps(y + row, keep, sum[t]);
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

void mf_avx2_linear_f32(const float *tiles, uint32_t out, uint32_t inputs, const float *x,
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

/* Calls `eight` on eight floats of a (and b) at a time; the remainder goes through copies. */
MF_INLINE void map(const float *a, const float *b, size_t n, float *out,
                   __m256 (*eight)(__m256, __m256)) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        _mm256_storeu_ps(out + i, eight(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i)));
    }
    if (i < n) {
        const __m256i keep = first_lanes(n - i);
        const __m256 x = _mm256_maskload_ps(a + i, keep), y = _mm256_maskload_ps(b + i, keep);
        _mm256_maskstore_ps(out + i, keep, eight(x, y));
    }
}

/* 2^n by its exponent times a Taylor polynomial on |r| <= ln(2)/2, whose remainder is below 6e-9. */
MF_INLINE __m256 eight_exp(__m256 x) {
    static const float factors[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
    x = _mm256_min_ps(_mm256_set1_ps(87.0f), _mm256_max_ps(_mm256_set1_ps(-87.0f), x));
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                                     _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    /* ln(2) in two parts, the first of few bits */
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 y = _mm256_set1_ps(1.0f / 5040);
#pragma GCC unroll 7
    for (int i = 0; i < 7; i++) {
        y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(factors[i]));
    }
    const __m256i power = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(y), power));
}

MF_INLINE __m256 eight_add(__m256 x, __m256 y) { return _mm256_add_ps(x, y); }
MF_INLINE __m256 eight_sub(__m256 x, __m256 y) { return _mm256_sub_ps(x, y); }
MF_INLINE __m256 eight_mul(__m256 x, __m256 y) { return _mm256_mul_ps(x, y); }

MF_INLINE __m256 eight_sigmoid(__m256 x, __m256 y) {
    const __m256 one = _mm256_set1_ps(1.0f);
    (void)y;
    return _mm256_div_ps(one, _mm256_add_ps(one, eight_exp(_mm256_sub_ps(_mm256_setzero_ps(), x))));
}

MF_INLINE __m256 eight_tanh(__m256 x, __m256 y) {
    const __m256 two = _mm256_set1_ps(2.0f), z = eight_sigmoid(_mm256_mul_ps(two, x), y);
    return _mm256_fmsub_ps(two, z, _mm256_set1_ps(1.0f));
}

void mf_avx2_add_f32(const float *a, const float *b, size_t n, float *out) {
    map(a, b, n, out, eight_add);
}

void mf_avx2_sub_f32(const float *a, const float *b, size_t n, float *out) {
    map(a, b, n, out, eight_sub);
}

void mf_avx2_mul_f32(const float *a, const float *b, size_t n, float *out) {
    map(a, b, n, out, eight_mul);
}

void mf_avx2_sigmoid_f32(const float *x, size_t n, float *out) { map(x, x, n, out, eight_sigmoid); }

void mf_avx2_tanh_f32(const float *x, size_t n, float *out) { map(x, x, n, out, eight_tanh); }

#endif
