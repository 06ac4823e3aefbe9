/* Products of float32 weights on AVX2 with FMA: tiles of 8 rows, up to 8 of them together, or 4 by 3 steps. */
#include "fast_avx2.h"

#ifdef __AVX2__

/* Columns of some tiles of a panel, and where their sums go. */
typedef struct {
    const float *w;
    size_t width;      /* floats from column to column */
    uint32_t columns;
    int begins;        /* sums begin with 0, else with what is in y */
    const float *bias; /* added in the end; or NULL */
    size_t rows;
} piece;

/* `tiles` tiles for `steps` steps, both constants. Sums are the same whatever the pieces and steps. */
MF_INLINE void multiply(piece p, const float *x, size_t x_stride, float *y, size_t y_stride, int tiles,
                        int steps) {
    __m256 sum[12];
    MF_UNROLL
    for (int i = 0; i < tiles * steps; i++) {
        const size_t row = (size_t)(i / steps) * MF_TILE_F32, left = p.rows - row;
        const float *from = y + (size_t)(i % steps) * y_stride + row;
        sum[i] = _mm256_setzero_ps();
        if (!p.begins) {
            sum[i] = left < MF_TILE_F32 ? _mm256_maskload_ps(from, first_lanes(left)) : _mm256_loadu_ps(from);
        }
    }
    for (uint32_t j = 0; j < p.columns; j++, p.w += p.width) {
        __m256 v[3];
        MF_UNROLL
        for (int s = 0; s < steps; s++) {
            v[s] = _mm256_broadcast_ss(x + (size_t)s * x_stride + j);
        }
        MF_UNROLL
        for (int t = 0; t < tiles; t++) {
            const __m256 w = _mm256_loadu_ps(p.w + t * MF_TILE_F32);
            MF_UNROLL
            for (int s = 0; s < steps; s++) {
                sum[t * steps + s] = _mm256_fmadd_ps(w, v[s], sum[t * steps + s]);
            }
        }
    }
    MF_UNROLL
    for (int i = 0; i < tiles * steps; i++) {
        const size_t row = (size_t)(i / steps) * MF_TILE_F32, left = p.rows - row;
        float *to = y + (size_t)(i % steps) * y_stride + row;
        if (left >= MF_TILE_F32) { /* masked stores are many times slower */
            _mm256_storeu_ps(to, p.bias ? _mm256_add_ps(sum[i], _mm256_loadu_ps(p.bias + row)) : sum[i]);
            continue;
        }
        const __m256i keep = first_lanes(left);
        if (p.bias) {
            sum[i] = _mm256_add_ps(sum[i], _mm256_maskload_ps(p.bias + row, keep));
        }
        _mm256_maskstore_ps(to, keep, sum[i]);
    }
}

/* All steps of up to four tiles, three at a time. */
MF_INLINE void multiply_steps(piece p, const float *x, size_t x_stride, size_t steps, float *y,
                              size_t y_stride, int tiles) {
    size_t s = 0;
    for (; s + 3 <= steps; s += 3) {
        multiply(p, x + s * x_stride, x_stride, y + s * y_stride, y_stride, tiles, 3);
    }
    if (steps - s == 2) {
        multiply(p, x + s * x_stride, x_stride, y + s * y_stride, y_stride, tiles, 2);
    } else if (steps > s) {
        multiply(p, x + s * x_stride, x_stride, y + s * y_stride, y_stride, tiles, 1);
    }
}

#define MF_TILES(n, f, ...)                                                                        \
    case n:                                                                                        \
        f(__VA_ARGS__, n);                                                                         \
        break;

/* Several steps of a panel, whose columns take turns: those of a block stay in the first cache for all steps. */
static void multiply_panel(piece whole, const float *x, size_t x_stride, size_t steps, float *y,
                           size_t y_stride) {
    enum { BLOCK = 64, TILES = 4 };
    const size_t height = (size_t)TILES * MF_TILE_F32;
    for (uint32_t first = 0; first < whole.columns; first += BLOCK) {
        const uint32_t left = whole.columns - first;
        for (size_t row = 0; row < whole.rows; row += height) {
            piece p = whole;
            p.w += first * whole.width + row;
            p.columns = left < BLOCK ? left : BLOCK;
            p.begins = first == 0;
            p.bias = left > BLOCK || !whole.bias ? NULL : whole.bias + row;
            p.rows = whole.rows - row < height ? whole.rows - row : height;
            switch ((p.rows + MF_TILE_F32 - 1) / MF_TILE_F32) {
                MF_TILES(1, multiply_steps, p, x + first, x_stride, steps, y + row, y_stride)
                MF_TILES(2, multiply_steps, p, x + first, x_stride, steps, y + row, y_stride)
                MF_TILES(3, multiply_steps, p, x + first, x_stride, steps, y + row, y_stride)
                MF_TILES(4, multiply_steps, p, x + first, x_stride, steps, y + row, y_stride)
            default:
                break;
            }
        }
    }
}

MF_INLINE void multiply_once(piece p, const float *x, float *y, int tiles) {
    multiply(p, x, 0, y, 0, tiles, 1);
}

void mf_avx2_linear_f32(const float *tiles, uint32_t out, uint32_t inputs, const float *x,
                        size_t x_stride, size_t steps, const float *bias, float *y,
                        size_t y_stride) {
    const size_t height = MF_TILE_F32 * MF_PANEL_F32;
    for (size_t row = 0; row < out; row += height) {
        const size_t rows = out - row < height ? out - row : height;
        const size_t wide = mf_round_up(rows, MF_TILE_F32);
        const piece p = {tiles + row * inputs, wide, inputs, 1, bias ? bias + row : NULL, rows};
        if (steps > 1) {
            multiply_panel(p, x, x_stride, steps, y + row, y_stride);
            continue;
        }
        switch (wide / MF_TILE_F32) {
            MF_TILES(1, multiply_once, p, x, y + row)
            MF_TILES(2, multiply_once, p, x, y + row)
            MF_TILES(3, multiply_once, p, x, y + row)
            MF_TILES(4, multiply_once, p, x, y + row)
            MF_TILES(5, multiply_once, p, x, y + row)
            MF_TILES(6, multiply_once, p, x, y + row)
            MF_TILES(7, multiply_once, p, x, y + row)
            MF_TILES(8, multiply_once, p, x, y + row)
        default:
            break;
        }
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

/* Whether x is finite, and a copy of it where y is not NULL: x - x is 0 for finite numbers only. */
MF_INLINE int finite(const float *x, size_t n, float *y) {
    enum { WAYS = 4 };
    __m256 rest[WAYS] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
    size_t i = 0;
    for (; i + 8 * WAYS <= n; i += 8 * WAYS) {
        MF_UNROLL
        for (int w = 0; w < WAYS; w++) {
            const __m256 v = _mm256_loadu_ps(x + i + 8 * w);
            if (y) {
                _mm256_storeu_ps(y + i + 8 * w, v);
            }
            rest[w] = _mm256_or_ps(rest[w], _mm256_sub_ps(v, v));
        }
    }
    for (; i < n; i += 8) {
        const size_t left = n - i;
        const __m256i keep = first_lanes(left);
        const __m256 v = _mm256_maskload_ps(x + i, keep);
        if (y && left >= 8) { /* masked stores are many times slower */
            _mm256_storeu_ps(y + i, v);
        } else if (y) {
            _mm256_maskstore_ps(y + i, keep, v);
        }
        rest[0] = _mm256_or_ps(rest[0], _mm256_sub_ps(v, v));
    }
    const __m256 all = _mm256_or_ps(_mm256_or_ps(rest[0], rest[1]), _mm256_or_ps(rest[2], rest[3]));
    return _mm256_testz_si256(_mm256_castps_si256(all), _mm256_castps_si256(all));
}

int mf_avx2_copy_f32(const float *x, size_t n, float *y) { return finite(x, n, y); }

int mf_avx2_finite_f32(const float *x, size_t n) { return finite(x, n, NULL); }

#endif
