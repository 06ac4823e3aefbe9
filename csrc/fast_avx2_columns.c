/* Columns of a few active inputs on AVX2, 64 rows at a time, added to a vector of totals. */
#include "fast_avx2.h"

#ifdef __AVX2__

/* The eight totals from `at` on, sign-extended sums added. */
MF_INLINE void add_eight(int32_t *at, __m128i sums) {
    const __m256i old = load(at);
    _mm256_storeu_si256((__m256i *)at, _mm256_add_epi32(old, _mm256_cvtepi16_epi32(sums)));
}

MF_INLINE void add_chunk(const int8_t *base, size_t stride, const mf_column_run *run, int pairs,
                         int32_t *total) {
    __m256i sum[4];
    for (int i = 0; i < 4; i++) { /* the correction; see MF_RUN_PAIRS for the range */
        sum[i] = _mm256_set1_epi16((short)run->correction);
    }
#pragma GCC unroll 4
    for (int k = 0; k < pairs; k++) {
        const int8_t *one = base + run->column[2 * k] * stride;
        const int8_t *two = base + run->column[2 * k + 1] * stride;
        const __m256i size = broadcast_32(&run->magnitude[k]), sign = broadcast_32(&run->sign[k]);
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            const __m256i a = load(one + 32 * half), b = load(two + 32 * half);
            const __m256i low = _mm256_xor_si256(_mm256_unpacklo_epi8(a, b), sign);
            const __m256i high = _mm256_xor_si256(_mm256_unpackhi_epi8(a, b), sign);
            sum[2 * half] = _mm256_add_epi16(sum[2 * half], _mm256_maddubs_epi16(size, low));
            sum[2 * half + 1] =
                _mm256_add_epi16(sum[2 * half + 1], _mm256_maddubs_epi16(size, high));
        }
    }
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++, total += 32) { /* unpacking works in halves of vectors */
        add_eight(total, _mm256_castsi256_si128(sum[2 * half]));
        add_eight(total + 8, _mm256_castsi256_si128(sum[2 * half + 1]));
        add_eight(total + 16, _mm256_extracti128_si256(sum[2 * half], 1));
        add_eight(total + 24, _mm256_extracti128_si256(sum[2 * half + 1], 1));
    }
}

MF_INLINE void add_all(const mf_packed *p, const mf_column_run *run, int pairs, int32_t *total) {
    const int8_t *base = (const int8_t *)p + p->by_columns;
    size_t row = 0;
    for (; row + MF_COLUMN_CHUNK <= p->rows; row += MF_COLUMN_CHUNK) {
        add_chunk(base + row, p->column_stride, run, pairs, total + row);
    }
    if (row < p->rows) {
        int32_t end[MF_COLUMN_CHUNK] = {0};
        memcpy(end, total + row, (p->rows - row) * sizeof *end);
        add_chunk(base + row, p->column_stride, run, pairs, end);
        memcpy(total + row, end, (p->rows - row) * sizeof *end);
    }
}

void mf_avx2_add_columns(const mf_packed *p, const mf_column_run *run, int32_t *total) {
    switch (run->pairs) {
    case 1:
        add_all(p, run, 1, total);
        break;
    case 2:
        add_all(p, run, 2, total);
        break;
    case 3:
        add_all(p, run, 3, total);
        break;
    default:
        add_all(p, run, MF_RUN_PAIRS, total);
    }
}

#endif
