/* Panels of tiles on AVX2: what their kernels share. */
#ifndef MODELFLEX_FAST_AVX2_PANELS_H
#define MODELFLEX_FAST_AVX2_PANELS_H

#include "fast_avx2.h"

#ifdef __AVX2__

/* Eight codes, 0 behind the end. */
MF_INLINE __m128i eight(const int16_t *x, size_t left) {
    int16_t end[8] = {0};
    if (left < 8) {
        memcpy(end, x, left * sizeof *x);
        return _mm_loadu_si128((const __m128i *)end);
    }
    return _mm_loadu_si128((const __m128i *)x);
}

/* 32 codes as bytes. */
MF_INLINE __m256i bytes_of(const int16_t *x) {
    return _mm256_permute4x64_epi64(_mm256_packs_epi16(load(x), load(x + 16)), 0xD8);
}

/* The same, 0 behind the end. */
MF_INLINE __m256i bytes_from(const int16_t *x, size_t left) {
    const __m128i zero = _mm_setzero_si128();
    if (left >= 32) {
        return bytes_of(x);
    }
    const __m128i a = eight(x, left), b = left > 8 ? eight(x + 8, left - 8) : zero;
    if (left <= 16) {
        return _mm256_zextsi128_si256(_mm_packs_epi16(a, b));
    }
    const __m128i c = eight(x + 16, left - 16), d = left > 24 ? eight(x + 24, left - 24) : zero;
    return _mm256_setr_m128i(_mm_packs_epi16(a, b), _mm_packs_epi16(c, d));
}

/* For every four of 32 numbers: the bytes |x|, then the bytes s, -1 where x < 0, else 0. Adds |x| where x < 0 to the
 * sum. */
MF_INLINE void put_sizes(__m256i size, __m256i sign, uint8_t *to, __m256i *negative) {
    const __m256i a = _mm256_unpacklo_epi32(size, sign), b = _mm256_unpackhi_epi32(size, sign);
    const __m256i below = _mm256_and_si256(size, sign);
    _mm256_storeu_si256((__m256i *)to, _mm256_permute2x128_si256(a, b, 0x20));
    _mm256_storeu_si256((__m256i *)(to + 32), _mm256_permute2x128_si256(a, b, 0x31));
    *negative = _mm256_add_epi64(*negative, _mm256_sad_epu8(below, _mm256_setzero_si256()));
}

/* The same of signed bytes; returns all |x|. */
MF_INLINE __m256i put_signed(__m256i x, uint8_t *to, __m256i *negative) {
    const __m256i size = _mm256_abs_epi8(x);
    put_sizes(size, _mm256_cmpgt_epi8(_mm256_setzero_si256(), x), to, negative);
    return size;
}

/* The sum of all lanes, as 32 bits. */
MF_INLINE int32_t sum_of_eight(__m256i v) {
    return sum_of_four(_mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)));
}

/* Packed tiles and prepared steps that are multiplied together; `tables` of the first tile on. */
typedef struct {
    const uint8_t *w;
    size_t vectors;
    const uint8_t *x;
    size_t stride; /* from step to step */
    const __m128i *tables;
} mf_panels;

/* Multiplies `tiles` tiles, those from MF_PANEL_TILES on in the panel behind, by `steps` steps:
 * sum[t * steps + s] of tile t and step s. */
typedef void (*mf_panels_kernel)(mf_panels at, __m256i *sum, int tiles, int steps);

/* `rows` results of which a tile has 8, from the sums of a step. */
static inline void store_tile(__m256i sum, size_t rows, const int32_t *bias, int32_t *to) {
    const __m256i keep = first_lanes(rows); /* masked stores are many times slower than whole ones */
    if (bias) {
        sum = _mm256_add_epi32(sum, _mm256_maskload_epi32(bias, keep));
    }
    _mm256_maskstore_epi32(to, keep, sum);
}

MF_INLINE void some_tiles(const mf_packed *p, const mf_steps *steps, mf_panels_kernel kernel,
                          size_t tile, size_t step, int tiles, int together, int shift) {
    const uint8_t *base = (const uint8_t *)p;
    mf_panels at;
    at.w = base + p->tiles + tile * p->vectors * 32;
    at.vectors = p->vectors;
    at.x = steps->x + step * steps->x_stride;
    at.stride = steps->x_stride;
    at.tables = (const __m128i *)(base + p->tables) + tile;
    __m256i sum[8];
    kernel(at, sum, tiles, together);
    const size_t row = tile * 8, left = p->rows - row, stride = steps->acc_stride;
    const __m128i scale = _mm_cvtsi32_si128(p->scale >> 1); /* scale is 1 or 2 */
    const int32_t *bias = steps->bias ? steps->bias + row : NULL;
    int32_t *to = steps->acc + step * stride + row;
    __m256i correction[2];
#pragma GCC unroll 2
    for (int s = 0; s < together; s++) {
        correction[s] = _mm256_set1_epi32(steps->correction[step + (size_t)s]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < tiles * together; i++) {
        sum[i] = _mm256_add_epi32(shift ? _mm256_sll_epi32(sum[i], scale) : sum[i],
                                  correction[i % together]);
    }
    if (left >= (size_t)tiles * 8) {
#pragma GCC unroll 8
        for (int i = 0; i < tiles * together; i++) {
            const int t = i / together * 8;
            const __m256i all = bias ? _mm256_add_epi32(sum[i], load(bias + t)) : sum[i];
            _mm256_storeu_si256((__m256i *)(to + (size_t)(i % together) * stride + t), all);
        }
        return;
    }
    for (int i = 0; i < tiles * together; i++) {
        const size_t t = (size_t)(i / together) * 8;
        store_tile(sum[i], left - t, bias ? bias + t : NULL, to + (size_t)(i % together) * stride + t);
    }
}

/* All steps of `tiles` tiles (a panel, or what is left at the end), two at a time. */
MF_INLINE void steps_of_tiles(const mf_packed *p, const mf_steps *steps, mf_panels_kernel kernel,
                              size_t tile, size_t step, int tiles, int shift) {
    for (; step + 2 <= steps->steps; step += 2) {
        some_tiles(p, steps, kernel, tile, step, tiles, 2, shift);
    }
    if (step < steps->steps) {
        some_tiles(p, steps, kernel, tile, step, tiles, 1, shift);
    }
}

/* The whole product. A single step takes `most` tiles at once; `shift`: whether there is a scale. */
MF_INLINE void each_panel(const mf_packed *p, const mf_steps *steps, mf_panels_kernel kernel,
                          int most, int shift) {
    const size_t tiles = ((size_t)p->rows + 7) / 8;
    size_t tile = 0;
    if (most == 2 * MF_PANEL_TILES && steps->steps == 1) {
        for (; tile + 8 <= tiles; tile += 8) {
            some_tiles(p, steps, kernel, tile, 0, 8, 1, shift);
        }
    }
    for (; tile + MF_PANEL_TILES <= tiles; tile += MF_PANEL_TILES) {
        steps_of_tiles(p, steps, kernel, tile, 0, MF_PANEL_TILES, shift);
    }
    switch (tiles - tile) {
    case 3:
        steps_of_tiles(p, steps, kernel, tile, 0, 3, shift);
        break;
    case 2:
        steps_of_tiles(p, steps, kernel, tile, 0, 2, shift);
        break;
    case 1:
        steps_of_tiles(p, steps, kernel, tile, 0, 1, shift);
        break;
    default:
        break;
    }
}

#endif

#endif
