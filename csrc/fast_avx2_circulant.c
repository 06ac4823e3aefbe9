/* Block-circulant products on AVX2: 8 block rows in the lanes of a vector.
 *
 * A block times its inputs is a product of polynomials modulo z^b - 1 = (z^(b/2) - 1)(z^(b/2) + 1). Both
 * factors are reduced modulo either (halves added or subtracted), and so on down to z^2 - 1: with b = 8,
 * 4 + 4 + 16 products instead of 64. The inputs are transformed once; generators on the fly, since their
 * sums need more than the bytes in which they are read; results once, by exact halving:
 * y = (u + v) / 2 and (u - v) / 2 where u and v are the products modulo both factors. Blocks whose
 * inputs are all 0 are left out.
 * Generators are stored as u = g + 128, for vpmaddubsw adds and subtracts unsigned neighbours; this adds
 * 128 b / 2 to the generators modulo z^2 - 1, and so many times the sum of inputs to both their sums. */
#include "fast_avx2.h"

#ifdef __AVX2__

/* Pairs of transformed inputs that one block column needs: m * m / 2 modulo z^m + 1, 2 modulo z^2 - 1. */
#define PAIRS(b) ((b) == 4 ? 4 : (b) == 8 ? 12 : 44)

/* Prepared inputs: the block columns that are not 0, then their pairs. */
typedef struct {
    uint32_t count, padding;
} prepared_head;

/* Pairs of four inputs v: two of z^2 + 1, two of z^2 - 1. */
MF_INLINE void transform_4(__m128i v, int32_t *pairs) {
    const __m128i order = _mm_setr_epi8(0, 1, 6, 7, 2, 3, 0, 1, 8, 9, 10, 11, 10, 11, 8, 9);
    const __m128i half = _mm_srli_si128(v, 4), low = _mm_add_epi16(v, half);
    const __m128i d = _mm_sub_epi16(v, half), minus = _mm_sub_epi16(_mm_setzero_si128(), d);
    const __m128i all = _mm_unpacklo_epi64(_mm_unpacklo_epi32(d, minus), low);
    _mm_storeu_si128((__m128i *)pairs, _mm_shuffle_epi8(all, order));
}

/* Of eight: the pairs of d modulo z^4 + 1, where z^-1 = -z^3, and those of four. */
MF_INLINE void transform_8(__m128i v, int32_t *pairs) {
    const __m128i first = _mm_setr_epi8(0, 1, 14, 15, 12, 13, 10, 11, 2, 3, 0, 1, 14, 15, 12, 13);
    const __m128i last = _mm_setr_epi8(4, 5, 2, 3, 0, 1, 14, 15, 6, 7, 4, 5, 2, 3, 0, 1);
    const __m128i half = _mm_srli_si128(v, 8), d = _mm_sub_epi16(v, half);
    const __m128i all = _mm_unpacklo_epi64(d, _mm_sub_epi16(_mm_setzero_si128(), d));
    _mm_storeu_si128((__m128i *)pairs, _mm_shuffle_epi8(all, first));
    _mm_storeu_si128((__m128i *)(pairs + 4), _mm_shuffle_epi8(all, last));
    transform_4(_mm_add_epi16(v, half), pairs + 8);
}

/* Of sixteen, v and w: the same modulo z^8 + 1. */
MF_INLINE void transform_16(__m128i v, __m128i w, int32_t *pairs) {
    const __m128i reverse = _mm_setr_epi8(14, 15, 12, 13, 10, 11, 8, 9, 6, 7, 4, 5, 2, 3, 0, 1);
    const __m128i d = _mm_shuffle_epi8(_mm_sub_epi16(v, w), reverse);
    int16_t back[16]; /* d from z^7 on, then what stands for z^-1 ... */
    _mm_storeu_si128((__m128i *)back, d);
    _mm_storeu_si128((__m128i *)(back + 8), _mm_sub_epi16(_mm_setzero_si128(), d));
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++, pairs += 4) {
        _mm_storeu_si128((__m128i *)pairs, _mm_loadu_si128((const __m128i *)(back + 7 - i)));
    }
    transform_8(_mm_add_epi16(v, w), pairs);
}

/* Returns what the offset of generators adds to both sums modulo z^2 - 1, with its sign changed. */
MF_INLINE int32_t prepare(const mf_packed *p, const int16_t *x, int b, uint8_t *prepared) {
    const __m128i ones = _mm_set1_epi16(1);
    prepared_head *head = (prepared_head *)(void *)prepared;
    uint32_t *column = (uint32_t *)(void *)(head + 1);
    int32_t *pairs = (int32_t *)(void *)(column + p->vectors);
    uint32_t count = 0;
    __m128i sum = _mm_setzero_si128();
    for (uint32_t q = 0; q < p->vectors; q++, x += b) {
        const __m128i v = b == 4 ? _mm_loadl_epi64((const __m128i *)x) : load_128(x);
        const __m128i w = b == 16 ? load_128(x + 8) : v;
        const __m128i any = _mm_or_si128(v, w);
        if (_mm_testz_si128(any, any)) {
            continue;
        }
        sum = _mm_add_epi32(sum, _mm_madd_epi16(v, ones));
        if (b == 4) {
            transform_4(v, pairs);
        } else if (b == 8) {
            transform_8(v, pairs);
        } else {
            sum = _mm_add_epi32(sum, _mm_madd_epi16(w, ones));
            transform_16(v, w, pairs);
        }
        pairs += PAIRS(b);
        column[count++] = q;
    }
    head->count = count;
    return -128 * (b / 2) * sum_of_four(sum);
}

int32_t mf_avx2_prepare_circulant(const mf_packed *p, const int16_t *x, uint8_t *prepared) {
    switch (p->block) {
    case 4:
        return prepare(p, x, 4, prepared);
    case 8:
        return prepare(p, x, 8, prepared);
    default:
        return prepare(p, x, 16, prepared);
    }
}

/* Adds the m sums modulo z^m + 1 of m / 2 pairs of generators. */
MF_INLINE void add_products(const __m256i *d, const int32_t *pairs, int m, __m256i *sum) {
#pragma GCC unroll 8
    for (int i = 0; i < m; i++) {
#pragma GCC unroll 4
        for (int k = 0; k < m / 2; k++) {
            const __m256i by = broadcast_32(pairs + i * (m / 2) + k);
            sum[i] = in_order(_mm256_add_epi32(sum[i], _mm256_madd_epi16(d[k], by)));
        }
    }
}

/* The generators of m modulo z^(m/2) + 1 in d and z^(m/2) - 1 in v. */
MF_INLINE void reduce(__m256i *v, __m256i *d, int m) {
#pragma GCC unroll 4
    for (int k = 0; k < m / 4; k++) {
        d[k] = _mm256_sub_epi16(v[k], v[k + m / 4]);
        v[k] = _mm256_add_epi16(v[k], v[k + m / 4]);
    }
}

/* Adds one block column: m sums modulo each z^m + 1, m = b/2 ... 2, then 2 modulo z^2 - 1. */
MF_INLINE void add_blocks(const uint8_t *w, const int32_t *pairs, int b, __m256i *sum) {
    const __m256i plus = _mm256_set1_epi8(1), minus = _mm256_set1_epi16(-255); /* bytes 1, -1 */
    __m256i d[4], v[4];
#pragma GCC unroll 4
    for (int k = 0; k < b / 4; k++) {
        const __m256i u = load(w + 32 * k);
        d[k] = _mm256_maddubs_epi16(u, minus);
        v[k] = _mm256_maddubs_epi16(u, plus);
    }
    add_products(d, pairs, b / 2, sum);
    if (b == 16) {
        reduce(v, d, 8);
        add_products(d, pairs + 32, 4, sum + 8);
    }
    if (b >= 8) {
        reduce(v, d, 4);
        add_products(d, pairs + PAIRS(b) - 4, 2, sum + b - 4);
    }
    pairs += PAIRS(b) - 2;
    sum += b - 2;
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
        const __m256i by = broadcast_32(pairs + i);
        sum[i] = in_order(_mm256_add_epi32(sum[i], _mm256_madd_epi16(v[0], by)));
    }
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

/* The results of 8 block rows, of which `rows` rows are written: block row r is in lane r. */
MF_INLINE void store(const __m256i *y, int b, size_t rows, const int32_t *bias, int32_t *acc) {
    const size_t blocks = rows / (size_t)b;
#pragma GCC unroll 4
    for (int q = 0; q < b; q += 4) {
        const __m256i a = _mm256_unpacklo_epi32(y[q], y[q + 1]);
        const __m256i c = _mm256_unpacklo_epi32(y[q + 2], y[q + 3]);
        const __m256i e = _mm256_unpackhi_epi32(y[q], y[q + 1]);
        const __m256i f = _mm256_unpackhi_epi32(y[q + 2], y[q + 3]);
        __m256i four[4]; /* of block rows r and r + 4 */
        four[0] = _mm256_unpacklo_epi64(a, c);
        four[1] = _mm256_unpackhi_epi64(a, c);
        four[2] = _mm256_unpacklo_epi64(e, f);
        four[3] = _mm256_unpackhi_epi64(e, f);
#pragma GCC unroll 8
        for (size_t r = 0; r < 8; r++) {
            const size_t at = r * (size_t)b + (size_t)q;
            if (r < blocks) {
                const __m128i v = r < 4 ? _mm256_castsi256_si128(four[r])
                                        : _mm256_extracti128_si256(four[r - 4], 1);
                _mm_storeu_si128((__m128i *)(acc + at),
                                 bias ? _mm_add_epi32(v, load_128(bias + at)) : v);
            }
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
                sum[i] = in_order(_mm256_set1_epi32(i < b - 2 ? 0 : steps->correction[s]));
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
