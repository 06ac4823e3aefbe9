/* Piecewise linear functions of fx numbers that are odd about a centre (docs/arithmetic.md). */
#ifndef MODELFLEX_PIECEWISE_H
#define MODELFLEX_PIECEWISE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Segment i starts at |x| = breaks[i] with the height values[i]; breaks ascend from 0. Slopes have 16
 * fractional bits, 0 <= slopes[i] <= 2^16; the last is 0. Heights and centre lie in 0 .. 2^16. */
typedef struct {
    const int32_t *breaks, *values, *slopes;
    size_t segments;
    int32_t centre;
} mf_piecewise;

/* out = centre +- (values[i] + rsh(slopes[i] * (|x| - breaks[i]), 16)); `out` may be `x`. */
void mf_piecewise_array(const int32_t *x, size_t n, const mf_piecewise *table, int32_t *out);

#ifdef __cplusplus
}
#endif

#endif
