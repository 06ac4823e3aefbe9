/* Block-circulant products on AVX2: 8 block rows in the lanes of a vector.
 *
 * A block times its inputs is a product of polynomials modulo z^b - 1 = (z^(b/2) - 1)(z^(b/2) + 1). Both
 * factors are reduced modulo either (halves added or subtracted), and so on down to z^2 - 1: with b = 8,
 * 4 + 4 + 16 products instead of 64. The inputs are transformed once; generators on the fly, since their
 * sums need more than the bytes in which they are read; results once, by exact halving:
 * y = (u + v) / 2 and (u - v) / 2 where u and v are the products modulo both factors. Blocks whose
 * inputs are all 0 are left out. */
#include "fast_avx2.h"

#ifdef __AVX2__

/* Pairs of transformed inputs that one block column needs: m * m / 2 modulo z^m + 1, 2 modulo z^2 - 1. */
#define PAIRS(b) ((b) == 4 ? 4 : (b) == 8 ? 12 : 44)

/* Prepared inputs: the block columns that are not 0, then their pairs. */
typedef struct {
    uint32_t count, padding;
} prepared_head;

MF_INLINE int32_t pair(int first, int second) {
    return (int32_t)((uint32_t)(first & 0xFFFF) | (uint32_t)second << 16);
}

MF_INLINE void transform(const int16_t *x, int b, int32_t *pairs) {
    int16_t v[16];
    memcpy(v, x, (size_t)b * sizeof *v);
#pragma GCC unroll 3
    for (int m = b / 2; m >= 2; m /= 2) {
        int16_t d[16]; /* the reduced inputs from z^-m on: z^m = -1 */
        for (int i = 0; i < m; i++) {
            const int16_t low = v[i], high = v[i + m];
            v[i] = (int16_t)(low + high);
            d[i + m] = (int16_t)(low - high);
            d[i] = (int16_t)(high - low);
        }
        for (int i = 0; i < m; i++) {
            for (int k = 0; k < m / 2; k++) {
                *pairs++ = pair(d[m + i - 2 * k], d[m + i - 2 * k - 1]);
            }
        }
    }
    pairs[0] = pair(v[0], v[1]);
    pairs[1] = pair(v[1], v[0]);
}

MF_INLINE int any(const int16_t *x, int b) {
    int seen = 0;
    for (int i = 0; i < b; i++) {
        seen |= x[i];
    }
    return seen;
}

MF_INLINE void prepare(const mf_packed *p, const int16_t *x, int b, uint8_t *prepared) {
    prepared_head *head = (prepared_head *)(void *)prepared;
    uint32_t *column = (uint32_t *)(void *)(head + 1);
    int32_t *pairs = (int32_t *)(void *)(column + p->vectors);
    uint32_t count = 0;
    for (uint32_t q = 0; q < p->vectors; q++, x += b) {
        if (any(x, b)) {
            transform(x, b, pairs + count * PAIRS(b));
            column[count++] = q;
        }
    }
    head->count = count;
}

int32_t mf_avx2_prepare_circulant(const mf_packed *p, const int16_t *x, uint8_t *prepared) {
    if (p->block == 4) {
        prepare(p, x, 4, prepared);
    } else if (p->block == 8) {
        prepare(p, x, 8, prepared);
    } else {
        prepare(p, x, 16, prepared);
    }
    return 0;
}

/* Adds one block column: m sums modulo each z^m + 1, m = b/2 ... 2, then 2 modulo z^2 - 1. */
MF_INLINE void add_blocks(const uint8_t *w, const int32_t *pairs, int b, __m256i *sum) {
    __m256i v[8];
#pragma GCC unroll 8
    for (int k = 0; k < b / 2; k++) {
        v[k] = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(w + 16 * k)));
    }
#pragma GCC unroll 3
    for (int m = b / 2; m >= 2; m /= 2) {
        __m256i d[4];
#pragma GCC unroll 4
        for (int k = 0; k < m / 2; k++) {
            d[k] = _mm256_sub_epi16(v[k], v[k + m / 2]);
            v[k] = _mm256_add_epi16(v[k], v[k + m / 2]);
        }
#pragma GCC unroll 8
        for (int i = 0; i < m; i++, sum++) {
#pragma GCC unroll 4
            for (int k = 0; k < m / 2; k++, pairs++) {
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(d[k], broadcast_32(pairs)));
            }
        }
    }
    sum[0] = _mm256_add_epi32(sum[0], _mm256_madd_epi16(v[0], broadcast_32(pairs)));
    sum[1] = _mm256_add_epi32(sum[1], _mm256_madd_epi16(v[0], broadcast_32(pairs + 1)));
}

/* Sums in their order above to the b results, in place. */
MF_INLINE void back(__m256i *sum, int b, __m256i *y) {
    y[0] = sum[b - 2];
    y[1] = sum[b - 1];
#pragma GCC unroll 3
    for (int m = 2; m < b; m *= 2) {
        const __m256i *d = sum + b - 2 * m;
#pragma GCC unroll 8
        for (int i = 0; i < m; i++) {
            const __m256i u = y[i];
            y[i] = _mm256_srai_epi32(_mm256_add_epi32(u, d[i]), 1);
            y[i + m] = _mm256_srai_epi32(_mm256_sub_epi32(u, d[i]), 1);
        }
    }
}

/* The results of 8 block rows, of which `rows` rows are written. */
MF_INLINE void store(const __m256i *y, int b, size_t rows, const int32_t *bias, int32_t *acc) {
    int32_t in_lanes[16 * MF_LANES];
#pragma GCC unroll 16
    for (int i = 0; i < b; i++) {
        _mm256_storeu_si256((__m256i *)(in_lanes + i * MF_LANES), y[i]);
    }
    for (size_t r = 0; r < rows; r += (size_t)b) {
        const int32_t *from = in_lanes + r / (size_t)b;
        for (int i = 0; i < b; i++) {
            acc[r + (size_t)i] = from[i * MF_LANES] + (bias ? bias[r + (size_t)i] : 0);
        }
    }
}

MF_INLINE void multiply(const mf_packed *p, const mf_steps *steps, int b) {
    const size_t height = (size_t)(b * MF_LANES);
    for (size_t row = 0; row < p->rows; row += height) {
        const uint8_t *w = (const uint8_t *)p + p->tiles + row / (size_t)b * p->columns;
        const size_t rows = p->rows - row < height ? p->rows - row : height;
        for (size_t s = 0; s < steps->steps; s++) {
            const uint8_t *x = steps->x + s * steps->x_stride;
            const uint32_t count = ((const prepared_head *)(const void *)x)->count;
            const uint32_t *column = (const uint32_t *)(const void *)(x + sizeof(prepared_head));
            const int32_t *pairs = (const int32_t *)(column + p->vectors);
            __m256i sum[16], y[16];
#pragma GCC unroll 16
            for (int i = 0; i < b; i++) {
                sum[i] = _mm256_setzero_si256();
            }
            for (uint32_t k = 0; k < count; k++, pairs += PAIRS(b)) {
                add_blocks(w + (size_t)column[k] * height, pairs, b, sum);
            }
            back(sum, b, y);
            store(y, b, rows, steps->bias ? steps->bias + row : NULL,
                  steps->acc + s * steps->acc_stride + row);
        }
    }
}

void mf_avx2_circulant(const mf_packed *p, const mf_steps *steps) {
    if (p->block == 4) {
        multiply(p, steps, 4);
    } else if (p->block == 8) {
        multiply(p, steps, 8);
    } else {
        multiply(p, steps, 16);
    }
}

#endif
