/* Rounding to grids of integers, matrices column by column (core/gptq.py, core/rounding.py), bit for bit what NumPy gives:
 * binary64, one rounding an operation, in the order that is told here. */
#ifndef MODELFLEX_COLUMN_ROUNDING_H
#define MODELFLEX_COLUMN_ROUNDING_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The integers -top ... top, or the odd ones of them, times a step: that of row r in column j is
 * steps[j * stride + r] (stride 0: the same in all columns). */
typedef struct {
    int top, odd; /* top < 2^31; odd where only odd integers are on the grid */
    const double *steps;
    size_t stride;
} mf_integer_grid;

/* A chunk of columns; the rows of one column are contiguous, one column follows the other. */
typedef struct {
    size_t columns, rows;
    const double *shares; /* of the change of column i that column j takes, at [j * stride + i], i < j */
    size_t stride;
    const double *mask;   /* 1 or 0, what is stored is times that; NULL: all 1 */
    mf_integer_grid grid;
} mf_column_chunk;

/* values_j = values_j - sum_i shares_ji changes_i, i rising; then the nearest on the grid takes the place
 * of values_j, and changes_j is what was lost. */
void mf_round_columns(const mf_column_chunk *chunk, double *values, double *changes);

/* The nearest to (pulls_j - sum_i shares_ji changes_i) own_j + values_j takes the place of values_j, and
 * changes_j is how much more that is. */
void mf_descend_columns(const mf_column_chunk *chunk, const double *pulls, const double *own,
                        double *values, double *changes);

/* errors[s] = the sum of weights_i (y_i - x_i)^2, x_i = values_i / sizes_s, y_i the nearest to x_i of the
 * integers -top ... top (or the odd ones of them), for every size.
 * MF_SUM_LANES sums go side by side through MF_SUM_BLOCKS numbers each; they are added by halves, and what
 * that gives of one piece of the numbers after another. */
enum { MF_SUM_LANES = 64, MF_SUM_BLOCKS = 64 };
void mf_step_errors(const double *values, const double *weights, size_t n, const double *sizes,
                    size_t count, int top, int odd, double *errors);

/* The same on CPUs with AVX2. */
void mf_avx2_round_columns(const mf_column_chunk *chunk, double *values, double *changes);
void mf_avx2_descend_columns(const mf_column_chunk *chunk, const double *pulls, const double *own,
                             double *values, double *changes);
void mf_avx2_step_errors(const double *values, const double *weights, size_t n, const double *sizes,
                         size_t count, int top, int odd, double *errors);

#ifdef __cplusplus
}
#endif

#endif
