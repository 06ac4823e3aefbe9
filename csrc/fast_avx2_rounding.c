/* The loops of column_rounding.h with vectors of AVX2. */
#include "column_rounding.h"

#ifdef __AVX2__

#include "column_rounding_loops.h"

void mf_avx2_round_columns(const mf_column_chunk *chunk, double *values, double *changes) {
    round_columns(chunk, values, changes);
}

void mf_avx2_descend_columns(const mf_column_chunk *chunk, const double *pulls, const double *own,
                             double *values, double *changes) {
    descend_columns(chunk, pulls, own, values, changes);
}

void mf_avx2_step_errors(const double *values, const double *weights, size_t n, const double *sizes,
                         size_t count, int top, int odd, double *errors) {
    step_errors(values, weights, n, sizes, count, top, odd, errors);
}

#endif
