#include "read_loop.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define MF_READ_LOOP_AVX2
#define MF_INLINE static inline __attribute__((always_inline))
#else
#define MF_INLINE static inline
#endif

enum { LANES = 32 }; /* independent sums, so that no addition waits for the one before */

MF_INLINE uint64_t sum(const uint64_t *words, size_t count) {
    uint64_t lanes[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= count; i += LANES) {
        for (size_t k = 0; k < LANES; k++) {
            lanes[k] += words[i + k];
        }
    }
    uint64_t total = 0;
    for (; i < count; i++) {
        total += words[i];
    }
    for (size_t k = 0; k < LANES; k++) {
        total += lanes[k];
    }
    return total;
}

#ifdef MF_READ_LOOP_AVX2
__attribute__((target("avx2"))) static uint64_t sum_avx2(const uint64_t *words, size_t count) {
    return sum(words, count);
}
#endif

uint64_t mf_read_loop(const uint64_t *words, size_t count) {
#ifdef MF_READ_LOOP_AVX2
    if (__builtin_cpu_supports("avx2")) {
        return sum_avx2(words, count);
    }
#endif
    return sum(words, count);
}
