#include "piecewise.h"

#include "fixed_point.h"

/* The last segment that starts at or below `a`, by halving without branches on the data. */
static size_t find_segment(uint32_t a, const mf_piecewise *table) {
    size_t low = 0;
    for (size_t left = table->segments; left > 1;) {
        const size_t half = left / 2;
        low = (uint32_t)table->breaks[low + half] <= a ? low + half : low;
        left -= half;
    }
    return low;
}

void mf_piecewise_array(const int32_t *x, size_t n, const mf_piecewise *table, int32_t *out) {
    const mf_shift shift = mf_make_shift(16);
    for (size_t k = 0; k < n; k++) {
        const int32_t sign = x[k] >> 31; /* 0 or -1 */
        const uint32_t a = ((uint32_t)x[k] ^ (uint32_t)sign) - (uint32_t)sign;
        const size_t i = find_segment(a, table);
        const int64_t run = (int64_t)a - table->breaks[i];
        const int32_t y = table->values[i] + (int32_t)mf_rsh(table->slopes[i] * run, shift);
        out[k] = table->centre + ((y ^ sign) - sign);
    }
}
