/* The loops of column_rounding.h, compiled once for each instruction set: all give the same bits. */
#ifndef MODELFLEX_COLUMN_ROUNDING_LOOPS_H
#define MODELFLEX_COLUMN_ROUNDING_LOOPS_H

#include "column_rounding.h"

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF /* GCC contracts nothing in ISO C */
#endif

/* Rows are worked off in strips, whose sums stay in registers and whose changes in the nearest cache. */
enum { STRIP = 32 };

/* Adding and subtracting it rounds |x| < 2^31 to the nearest integer, ties to even. */
static const double WHOLE = 6755399441055744.0; /* 1.5 * 2^52 */

/* What column j is rounded from: from - sum_i shares_ji changes_i, of `rows` <= STRIP rows. */
static inline void lessen(const mf_column_chunk *chunk, size_t j, size_t rows, const double *from,
                          const double *changes, double *restrict sums) {
    const double *shares = chunk->shares + j * chunk->stride;
    double s[STRIP];
    for (size_t r = 0; r < rows; r++) {
        s[r] = from[r];
    }
    for (size_t i = 0; i < j; i++) {
        for (size_t r = 0; r < rows; r++) {
            s[r] -= shares[i] * changes[i * chunk->rows + r];
        }
    }
    for (size_t r = 0; r < rows; r++) {
        sums[r] = s[r];
    }
}

/* The nearest integer from -top to top, ties to even, or the nearest odd one, ties up. */
static inline double nearest(double x, double top, int odd) {
    x = x < -top ? -top : x;
    x = x > top ? top : x;
    /* floor(x / 2) + 1/2, twice, on the odd grid */
    const double y = odd ? 0.5 * x : x;
    double whole = (y + WHOLE) - WHOLE;
    whole -= odd && whole > y ? 1.0 : 0.0;
    return odd ? 2.0 * (whole + 0.5) : whole;
}

/* The nearest of column j, in the place of x. */
static inline void to_grid(const mf_column_chunk *chunk, size_t j, size_t first, size_t rows,
                           double *x) {
    const mf_integer_grid *grid = &chunk->grid;
    const double *steps = grid->steps + j * grid->stride + first, top = grid->top;
    if (grid->odd) {
        for (size_t r = 0; r < rows; r++) {
            x[r] = nearest(x[r] / steps[r], top, 1) * steps[r];
        }
    } else {
        for (size_t r = 0; r < rows; r++) {
            x[r] = nearest(x[r] / steps[r], top, 0) * steps[r];
        }
    }
    if (chunk->mask) {
        const double *mask = chunk->mask + j * chunk->rows + first;
        for (size_t r = 0; r < rows; r++) {
            x[r] *= mask[r];
        }
    }
}

static inline void round_strip(const mf_column_chunk *chunk, size_t first, size_t rows,
                               double *values, double *changes) {
    for (size_t j = 0; j < chunk->columns; j++) {
        double *own = values + j * chunk->rows + first, from[STRIP], near[STRIP];
        lessen(chunk, j, rows, own, changes + first, from);
        for (size_t r = 0; r < rows; r++) {
            near[r] = from[r];
        }
        to_grid(chunk, j, first, rows, near);
        for (size_t r = 0; r < rows; r++) {
            changes[j * chunk->rows + first + r] = from[r] - near[r];
            own[r] = near[r];
        }
    }
}

static inline void descend_strip(const mf_column_chunk *chunk, size_t first, size_t rows,
                                 const double *pulls, const double *own, double *values,
                                 double *changes) {
    for (size_t j = 0; j < chunk->columns; j++) {
        double *value = values + j * chunk->rows + first, wanted[STRIP];
        lessen(chunk, j, rows, pulls + j * chunk->rows + first, changes + first, wanted);
        for (size_t r = 0; r < rows; r++) {
            wanted[r] = wanted[r] * own[j] + value[r];
        }
        to_grid(chunk, j, first, rows, wanted);
        for (size_t r = 0; r < rows; r++) {
            changes[j * chunk->rows + first + r] = wanted[r] - value[r];
            value[r] = wanted[r];
        }
    }
}

/* With a constant number of rows the compiler unrolls the loops over them. */
static void round_columns(const mf_column_chunk *chunk, double *values, double *changes) {
    size_t first = 0;
    for (; first + STRIP <= chunk->rows; first += STRIP) {
        round_strip(chunk, first, STRIP, values, changes);
    }
    round_strip(chunk, first, chunk->rows - first, values, changes);
}

static void descend_columns(const mf_column_chunk *chunk, const double *pulls, const double *own,
                        double *values, double *changes) {
    size_t first = 0;
    for (; first + STRIP <= chunk->rows; first += STRIP) {
        descend_strip(chunk, first, STRIP, pulls, own, values, changes);
    }
    descend_strip(chunk, first, chunk->rows - first, pulls, own, values, changes);
}

/* sums[i] += weights_i (y_i - x_i)^2 of the next `lanes` numbers. */
static inline void add_errors(const double *values, const double *weights, size_t lanes, double size,
                              double top, int odd, double *restrict sums) {
    for (size_t i = 0; i < lanes; i++) {
        const double wanted = values[i] / size;
        const double lost = nearest(wanted, top, odd) - wanted;
        sums[i] += lost * lost * weights[i];
    }
}

/* What is lost of one piece of the numbers. */
static inline double piece_error(const double *values, const double *weights, size_t n, double size,
                                 double top, int odd) {
    double sums[MF_SUM_LANES] = {0};
    size_t first = 0;
    for (; first + MF_SUM_LANES <= n; first += MF_SUM_LANES) {
        add_errors(values + first, weights + first, MF_SUM_LANES, size, top, odd, sums);
    }
    add_errors(values + first, weights + first, n - first, size, top, odd, sums);
    for (size_t half = MF_SUM_LANES / 2; half; half /= 2) {
        for (size_t i = 0; i < half; i++) {
            sums[i] += sums[half + i];
        }
    }
    return sums[0];
}

static void step_errors(const double *values, const double *weights, size_t n, const double *sizes,
                    size_t count, int top, int odd, double *errors) {
    const size_t piece = MF_SUM_LANES * MF_SUM_BLOCKS;
    for (size_t s = 0; s < count; s++) {
        errors[s] = 0.0;
    }
    for (size_t first = 0; first < n; first += piece) { /* stays in a near cache for all sizes */
        const size_t some = n - first < piece ? n - first : piece;
        const double *x = values + first, *w = weights + first;
        for (size_t s = 0; s < count; s++) {
            errors[s] += odd ? piece_error(x, w, some, sizes[s], top, 1)
                             : piece_error(x, w, some, sizes[s], top, 0);
        }
    }
}

#endif
