/* Which instruction set is used. */
#include <string.h>

#include "packed.h"
#include "packed_kernels.h"

/* The build defines MODELFLEX_<set> where it compiles the files of that set, with their own flags. */
#if defined(MODELFLEX_NEON) && defined(__linux__)
#include <sys/auxv.h>
#endif

/* Best first. */
static const mf_instructions *const all[] = {
#ifdef MODELFLEX_AVX512VNNI
    &mf_avx512vnni,
#endif
#ifdef MODELFLEX_AVX2
    &mf_avx2,
#endif
#ifdef MODELFLEX_NEON
    &mf_neon,
#endif
    &mf_portable,
};
enum { COUNT = sizeof all / sizeof all[0] };

static int has(const mf_instructions *isa) {
#ifdef MODELFLEX_AVX2
    __builtin_cpu_init();
    if (isa == &mf_avx2) {
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    }
#endif
#ifdef MODELFLEX_AVX512VNNI
    if (isa == &mf_avx512vnni) {
#ifdef MODELFLEX_SIMDE
        return has(&mf_avx2); /* which emulates it */
#else
        return has(&mf_avx2) && __builtin_cpu_supports("avx512f") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512vnni");
#endif
    }
#endif
#if defined(MODELFLEX_NEON) && defined(__linux__)
    if (isa == &mf_neon) {
        return (getauxval(AT_HWCAP) & (1UL << 20)) != 0; /* HWCAP_ASIMDDP: dot products */
    }
#endif
    (void)isa; /* Apple's 64-bit ARM has dot products */
    return 1;
}

/* Read and written whole by any thread; what is loaded is bound to the set that was chosen then. */
static const mf_instructions *chosen;

static const mf_instructions *best_from(size_t i) {
    while (!has(all[i])) {
        i++;
    }
    return all[i];
}

const mf_instructions *mf_chosen(void) {
    const mf_instructions *isa = __atomic_load_n(&chosen, __ATOMIC_ACQUIRE);
    if (!isa) { /* whoever comes first finds the same, but does not undo a limit set meanwhile */
        const mf_instructions *none = NULL, *best = best_from(0);
        isa = __atomic_compare_exchange_n(&chosen, &none, best, 0, __ATOMIC_ACQ_REL,
                                          __ATOMIC_ACQUIRE)
                  ? best
                  : none;
    }
    return isa;
}

const char *mf_isa(void) { return mf_chosen()->name; }

int mf_limit_isa(const char *name) {
    for (size_t i = 0; i < COUNT; i++) {
        if ((!name || strcmp(name, all[i]->name) == 0) && has(all[i])) {
            __atomic_store_n(&chosen, all[i], __ATOMIC_RELEASE);
            return 0;
        }
    }
    return -1;
}

const mf_elementwise *mf_elementwise_table(void) { return mf_chosen()->elementwise; }
