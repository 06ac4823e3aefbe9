/* Prepared inputs of instruction sets that read x in its own order. */
#ifndef MODELFLEX_FAST_BYTES_H
#define MODELFLEX_FAST_BYTES_H

#include <string.h>

#include "packed_kernels.h"

/* int16 codes, 0 up to a whole vector. */
static inline int32_t mf_prepare_16(const mf_packed *p, const int16_t *x, uint8_t *prepared) {
    memcpy(prepared, x, p->columns * sizeof *x);
    memset(prepared + p->columns * sizeof *x, 0, p->columns % 2 * sizeof *x);
    return 0;
}

/* int8 codes, 0 up to a multiple of 32; returns offset times their sum, modulo 2^32. */
static inline int32_t mf_prepare_8(const mf_packed *p, const int16_t *x, uint8_t *prepared,
                                   int32_t offset) {
    const size_t columns = p->columns;
    int32_t sum = 0;
    for (size_t j = 0; j < columns; j++) {
        sum += x[j];
        prepared[j] = (uint8_t)x[j];
    }
    memset(prepared + columns, 0, mf_round_up(columns, 32) - columns);
    return (int32_t)((uint32_t)offset * (uint32_t)sum);
}

#endif
