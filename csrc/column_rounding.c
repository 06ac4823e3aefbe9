#include "column_rounding_loops.h"

#include "packed_kernels.h"

/* Whatever is chosen on a CPU of this family besides the portable code has AVX2 as well. */
#ifdef MODELFLEX_AVX2
#define FASTER(name, ...)              \
    if (mf_chosen() != &mf_portable) { \
        mf_avx2_##name(__VA_ARGS__);   \
        return;                        \
    }
#else
#define FASTER(name, ...)
#endif

void mf_round_columns(const mf_column_chunk *chunk, double *values, double *changes) {
    FASTER(round_columns, chunk, values, changes)
    round_columns(chunk, values, changes);
}

void mf_descend_columns(const mf_column_chunk *chunk, const double *pulls, const double *own,
                        double *values, double *changes) {
    FASTER(descend_columns, chunk, pulls, own, values, changes)
    descend_columns(chunk, pulls, own, values, changes);
}

void mf_step_errors(const double *values, const double *weights, size_t n, const double *sizes,
                    size_t count, int top, int odd, double *errors) {
    FASTER(step_errors, values, weights, n, sizes, count, top, odd, errors)
    step_errors(values, weights, n, sizes, count, top, odd, errors);
}
