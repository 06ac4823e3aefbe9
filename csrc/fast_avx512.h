/* Shared by the files of AVX-512 kernels, which a test can also build for emulation (MODELFLEX_SIMDE). */
#ifndef MODELFLEX_FAST_AVX512_H
#define MODELFLEX_FAST_AVX512_H

#include "fast_avx2.h"

#if defined(__AVX512VNNI__) || defined(MODELFLEX_SIMDE)
#define MF_AVX512

#ifdef MODELFLEX_SIMDE
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

/* What SIMDe has not got; as in the instructions, lanes that are left out are not accessed. */
static inline __m512i emulated_load(uint32_t keep, const void *at) {
    int32_t v[16];
    for (int i = 0; i < 16; i++) {
        v[i] = keep >> i & 1 ? ((const int32_t *)at)[i] : 0;
    }
    return _mm512_loadu_si512(v);
}

static inline void emulated_store(void *at, uint32_t keep, __m512i from) {
    int32_t v[16];
    _mm512_storeu_si512(v, from);
    for (int i = 0; i < 16; i++) {
        if (keep >> i & 1) {
            ((int32_t *)at)[i] = v[i];
        }
    }
}

#define _mm512_maskz_loadu_epi32(keep, at) emulated_load(keep, at)
#define _mm512_maskz_loadu_ps(keep, at) _mm512_castsi512_ps(emulated_load(keep, at))
#define _mm512_mask_storeu_epi32(at, keep, v) emulated_store(at, keep, v)
#define _mm512_mask_storeu_ps(at, keep, v) emulated_store(at, keep, _mm512_castps_si512(v))
#endif

MF_INLINE __m512i load_512(const void *at) { return _mm512_loadu_si512(at); }

/* The first n of 16 lanes. */
MF_INLINE __mmask16 first_16(size_t n) {
    return (__mmask16)(n < 16 ? (UINT32_C(1) << n) - 1 : 0xFFFF);
}

void mf_avx512_linear_f32(const float *tiles, uint32_t out, uint32_t inputs, const float *x,
                          size_t x_stride, size_t steps, const float *bias, float *y,
                          size_t y_stride);

#endif

#endif
