/* Shared by the files of AVX2 kernels. */
#ifndef MODELFLEX_FAST_AVX2_H
#define MODELFLEX_FAST_AVX2_H

#include "packed_kernels.h"

#ifdef __AVX2__ /* files are empty where they are compiled without the flags of their set */

#include <immintrin.h>
#include <string.h>

#define MF_INLINE static inline __attribute__((always_inline))

MF_INLINE __m256i load(const void *at) { return _mm256_loadu_si256((const __m256i *)at); }

MF_INLINE __m128i load_128(const void *at) { return _mm_loadu_si128((const __m128i *)at); }

MF_INLINE __m256i broadcast_32(const void *at) {
    int32_t v;
    memcpy(&v, at, sizeof v);
    return _mm256_set1_epi32(v);
}

/* All ones in the first n of 8 lanes. */
MF_INLINE __m256i first_lanes(size_t n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n < 8 ? (int)n : 8), lane);
}

/* Eight numbers of which `left` are there, 0 behind them. */
MF_INLINE __m256i eight_from(const int32_t *at, size_t left) {
    return left < 8 ? _mm256_maskload_epi32(at, first_lanes(left)) : load(at);
}

MF_INLINE int32_t sum_of_four(__m128i v) {
    v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0x4E));
    v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0xB1));
    return _mm_cvtsi128_si32(v);
}

/* Bytes ahead of what is multiplied that are fetched from the second cache. */
enum { AHEAD = 1024 };

MF_INLINE void prefetch(const void *at) { _mm_prefetch((const char *)at, _MM_HINT_T0); }

/* Keeps the order of what is computed: compilers mix the tiles of a loop and then run out of registers. */
MF_INLINE __m256i in_order(__m256i v) {
    __asm__ volatile("" : "+x"(v));
    return v;
}

int32_t mf_avx2_prepare_codes(const mf_packed *p, const int16_t *x, uint8_t *prepared);
void mf_avx2_codes_8(const mf_packed *p, const mf_steps *steps);
int32_t mf_avx2_prepare_affine(const mf_packed *p, const int16_t *x, uint8_t *prepared);
void mf_avx2_affine_4(const mf_packed *p, const mf_steps *steps);
void mf_avx2_affine_2(const mf_packed *p, const mf_steps *steps);
void mf_avx2_affine_1(const mf_packed *p, const mf_steps *steps);
int32_t mf_avx2_prepare_circulant(const mf_packed *p, const int16_t *x, uint8_t *prepared);
void mf_avx2_circulant(const mf_packed *p, const mf_steps *steps);
void mf_avx2_add_columns(const mf_packed *p, const mf_columns *listed, int32_t *total);
size_t mf_avx2_find_active(const int32_t *delta, size_t n, size_t most, uint64_t *active);
size_t mf_avx2_prepare_differences(const mf_packed *p, const int32_t *delta, uint8_t *prepared,
                                   int32_t *correction, uint32_t *limited);
void mf_avx2_linear_f32(const float *tiles, uint32_t out, uint32_t inputs, const float *x,
                        size_t x_stride, size_t steps, const float *bias, float *y,
                        size_t y_stride);
void mf_avx2_add_f32(const float *a, const float *b, size_t n, float *out);
void mf_avx2_sub_f32(const float *a, const float *b, size_t n, float *out);
void mf_avx2_mul_f32(const float *a, const float *b, size_t n, float *out);
void mf_avx2_sigmoid_f32(const float *x, size_t n, float *out);
void mf_avx2_tanh_f32(const float *x, size_t n, float *out);
void mf_avx2_lstm(const mf_gates *g, const int32_t *x, const int32_t *h, const int32_t *old,
                  int32_t *next, int32_t *out);
void mf_avx2_gru(const mf_gates *g, const int32_t *x, const int32_t *h, const int32_t *old,
                 int32_t *out);
int mf_avx2_copy_f32(const float *x, size_t n, float *y);
int mf_avx2_finite_f32(const float *x, size_t n);
void mf_avx2_refine_halves_f32(const mf_terms *t, const mf_halves *x, const float *bias, float *y,
                               mf_refine_budget *b);
void mf_avx2_refine_f32(const mf_terms *t, const float *x, const float *bias, float *y,
                        mf_refine_budget *b);
void mf_avx2_refine_i32(const mf_stored_terms *t, const int16_t *x, const int32_t *bias,
                        int32_t *acc, mf_refine_budget *b);
extern const mf_elementwise mf_avx2_elementwise;

#endif

#endif
