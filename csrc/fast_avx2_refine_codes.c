/* Progressive products of codes on AVX2 (refine_codes.h), of terms unpacked to 16 bits. */
#include "fast_avx2.h"

#ifdef __AVX2__

/* Sums that int32 holds, of n neighbouring codes. */
MF_INLINE int32_t dense(const int16_t *v, size_t n, const int16_t *x) {
    __m256i sum[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    size_t j = 0;
    for (; j + 32 <= n; j += 32) {
#pragma GCC unroll 2
        for (size_t w = 0; w < 2; w++) {
            const __m256i made = _mm256_madd_epi16(load(v + j + 16 * w), load(x + j + 16 * w));
            sum[w] = _mm256_add_epi32(sum[w], made);
        }
    }
    const __m256i all = _mm256_add_epi32(sum[0], sum[1]);
    int32_t found =
        sum_of_four(_mm_add_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1)));
    for (; j < n; j++) {
        found += v[j] * x[j];
    }
    return found;
}

/* Of blocks of 8. */
MF_INLINE int32_t blocks(const int16_t *v, const uint32_t *index, size_t kept, const int16_t *x) {
    __m128i sum[2] = {_mm_setzero_si128(), _mm_setzero_si128()};
    for (size_t k = 0; k < kept; k++) {
        const __m128i made = _mm_madd_epi16(load_128(v + 8 * k), load_128(x + 8 * (size_t)index[k]));
        sum[k % 2] = _mm_add_epi32(sum[k % 2], made);
    }
    return sum_of_four(_mm_add_epi32(sum[0], sum[1]));
}

MF_INLINE int32_t singles(const int16_t *v, const uint32_t *index, size_t kept, const int16_t *x) {
    int32_t sum = 0;
    for (size_t k = 0; k < kept; k++) {
        sum += v[k] * x[index[k]];
    }
    return sum;
}

MF_INLINE void add(const int16_t *u, int32_t code, size_t n, int32_t *acc) {
    const __m256i by = _mm256_set1_epi32(code);
    size_t r = 0;
    for (; r + 8 <= n; r += 8) {
        const __m256i made = _mm256_mullo_epi32(_mm256_cvtepi16_epi32(load_128(u + r)), by);
        _mm256_storeu_si256((__m256i *)(void *)(acc + r), _mm256_add_epi32(load(acc + r), made));
    }
    for (; r < n; r++) {
        acc[r] += u[r] * code;
    }
}

void mf_avx2_refine_i32(const mf_stored_terms *t, const int16_t *x, const int32_t *bias,
                        int32_t *acc, mf_refine_budget *b) {
    const mf_unpacked_terms *f = t->fast;
    if (!f) {
        mf_refine_i32(t, x, bias, acc, b);
        return;
    }
    const size_t rows = t->u->out, together = rows / t->groups, n = (size_t)f->kept * f->width;
    for (size_t r = 0; r < rows; r++) {
        acc[r] = bias ? bias[r] : 0;
    }
    for (b->used = 0; mf_may_refine(b); b->used++) {
        for (uint32_t g = 0; g < t->groups; g++) {
            const uint32_t row = b->used * t->groups + g;
            const int16_t *v = f->v + row * n;
            const uint32_t *index = f->index ? f->index + (size_t)row * f->kept : NULL;
            const int32_t sum = !index          ? dense(v, n, x)
                                : f->width == 8 ? blocks(v, index, f->kept, x)
                                                : singles(v, index, f->kept, x);
            const size_t first = g * together;
            add(f->u + b->used * rows + first, mf_refine_code(t, row, sum), together, acc + first);
        }
    }
}

#endif
