/* Products of affine codes of few bits on AVX2: u unsigned, x signed; scale * sum(u x) + offset * sum(x).
 *
 * vpmaddubsw adds two products of u and x: at most 2 * 128 * (2^bits - 1) in size. Several such sums fit
 * int16 (`GROUP` vectors of columns), and only these are widened. */
#include "fast_avx2_panels.h"

#ifdef __AVX2__

int32_t mf_avx2_prepare_affine(const mf_packed *p, const int16_t *x, uint8_t *prepared) {
    const __m128i ones = _mm_set1_epi16(1);
    const size_t padded = mf_round_up(p->columns, 32);
    const __m256i wide_ones = _mm256_set1_epi16(1);
    __m256i sums = _mm256_setzero_si256();
    __m128i sum = _mm_setzero_si128();
    size_t j = 0;
    for (; j + 32 <= p->columns; j += 32, prepared += 32) {
        const __m256i a = _mm256_madd_epi16(load(x + j), wide_ones);
        const __m256i b = _mm256_madd_epi16(load(x + j + 16), wide_ones);
        sums = _mm256_add_epi32(sums, _mm256_add_epi32(a, b));
        _mm256_storeu_si256((__m256i *)prepared, bytes_of(x + j));
    }
    for (; j < p->columns; j += 8, prepared += 8) {
        const __m128i wide = eight(x + j, p->columns - j);
        sum = _mm_add_epi32(sum, _mm_madd_epi16(wide, ones));
        _mm_storel_epi64((__m128i *)prepared, _mm_packs_epi16(wide, wide));
    }
    memset(prepared, 0, padded - j);
    return p->offset * (sum_of_eight(sums) + sum_of_four(sum));
}

/* Vectors of 8 / bits planes each whose sums fit int16: 2^15 / (2^8 (2^bits - 1)) sums. */
#define GROUP(bits) ((bits) == 4 ? 4 : (bits) == 2 ? 10 : 15)

/* Adds `vectors` vectors of columns. */
MF_INLINE void add_group(const uint8_t *w, const uint8_t *x, size_t stride, size_t vectors,
                         __m256i *total, int bits, int tiles, int steps) {
    const __m256i low = _mm256_set1_epi8((char)((1 << bits) - 1)), ones = _mm256_set1_epi16(1);
    const int planes = 8 / bits;
    __m256i part[8];
#pragma GCC unroll 8
    for (int i = 0; i < tiles * steps; i++) {
        part[i] = in_order(_mm256_setzero_si256());
    }
    for (size_t k = 0; k < vectors; k++, w += tiles * 32, x += planes * 4) {
        __m256i by[16];
#pragma GCC unroll 4
        for (int i = 0; i < tiles; i += 2) {
            prefetch(w + AHEAD + i * 32);
        }
#pragma GCC unroll 16
        for (int i = 0; i < planes * steps; i++) {
            by[i] = broadcast_32(x + (size_t)(i % steps) * stride + i / steps * 4);
        }
#pragma GCC unroll 4
        for (int t = 0; t < tiles; t++) {
            const __m256i packed = load(w + t * 32);
#pragma GCC unroll 16
            for (int i = 0; i < planes * steps; i++) {
                const __m256i u =
                    _mm256_and_si256(_mm256_srli_epi16(packed, i / steps * bits), low);
                __m256i *to = part + t * steps + i % steps;
                *to = in_order(_mm256_add_epi16(*to, _mm256_maddubs_epi16(u, by[i])));
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < tiles * steps; i++) {
        total[i] = _mm256_add_epi32(total[i], _mm256_madd_epi16(part[i], ones));
    }
}

MF_INLINE void affine(mf_panels at, __m256i *sum, int bits, int tiles, int steps) {
    __m256i total[8];
#pragma GCC unroll 8
    for (int i = 0; i < tiles * steps; i++) {
        total[i] = _mm256_setzero_si256();
    }
    size_t k = 0;
    for (; k + GROUP(bits) <= at.vectors; k += GROUP(bits)) {
        add_group(at.w, at.x, at.stride, GROUP(bits), total, bits, tiles, steps);
        at.w += GROUP(bits) * tiles * 32;
        at.x += GROUP(bits) * (8 / bits) * 4;
    }
    add_group(at.w, at.x, at.stride, at.vectors - k, total, bits, tiles, steps);
#pragma GCC unroll 8
    for (int i = 0; i < tiles * steps; i++) {
        sum[i] = total[i];
    }
}

#define AFFINE(bits)                                                                               \
    MF_INLINE void panels_##bits(mf_panels at, __m256i *sum, int tiles, int steps) {               \
        affine(at, sum, bits, tiles, steps);                                                       \
    }                                                                                              \
    void mf_avx2_affine_##bits(const mf_packed *p, const mf_steps *steps) {                        \
        each_panel(p, steps, panels_##bits, MF_PANEL_TILES, 1);                                    \
    }

AFFINE(4)
AFFINE(2)
AFFINE(1)

#endif
