#include "matrix.h"

#include <stddef.h>

#include "matrix_tiles.h"

static inline uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* Which inputs may be other than 0: one byte for each `block` of them, or all of them if NULL. */
typedef struct {
    const uint8_t *mask;
    uint32_t block;
} sent_inputs;

static const sent_inputs all_sent = {NULL, 1};

/* Whether any of inputs first ... first + n - 1 is sent. */
static inline int any_sent(sent_inputs sent, uint32_t first, uint32_t n) {
    if (!sent.mask) {
        return 1;
    }
    if (n == 1 && sent.block == 1) { /* without divisions, which small machines make by software */
        return sent.mask[first];
    }
    for (uint32_t i = first / sent.block; i <= (first + n - 1) / sent.block; i++) {
        if (sent.mask[i]) {
            return 1;
        }
    }
    return 0;
}

#define MF_X int16_t
#define MF_ACC int32_t
#define MF_NAME(f) f##_codes_i32
#include "matrix_products.h"

#define MF_X int16_t
#define MF_ACC int64_t
#define MF_NAME(f) f##_codes_i64
#include "matrix_products.h"

#define MF_X int32_t
#define MF_ACC int32_t
#define MF_NAME(f) f##_delta_i32
#include "matrix_products.h"

#define MF_X int32_t
#define MF_ACC int64_t
#define MF_NAME(f) f##_delta_i64
#include "matrix_products.h"

/* The functions of one type of accumulator. */
#define MF_PRODUCTS(width, type)                                                                   \
    static void start_##width(uint32_t out, uint32_t positions, const type *bias, type *acc) {     \
        for (uint32_t r = 0; r < out; r++, acc += positions) {                                     \
            for (uint32_t p = 0; p < positions; p++) {                                             \
                acc[p] = bias ? bias[r] : 0;                                                       \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
    void mf_linear_##width(const mf_matrix *m, const int16_t *x, const type *bias, type *acc) {    \
        start_##width(m->out, 1, bias, acc);                                                       \
        multiply_codes_##width(m, x, all_sent, acc, 1);                                            \
    }                                                                                              \
    void mf_accumulate_##width(const mf_matrix *m, const int32_t *delta, const uint8_t *mask,      \
                               uint32_t mask_block, type *total) {                                 \
        const sent_inputs sent = {mask, mask_block};                                               \
        multiply_delta_##width(m, delta, sent, total, 1);                                          \
    }                                                                                              \
    type mf_row_##width(const mf_matrix *m, uint32_t row, const int16_t *x) {                      \
        return row_codes_##width(m, row, x);                                                       \
    }                                                                                              \
    void mf_add_column_##width(const mf_matrix *m, uint32_t column, int16_t by, uint32_t first,    \
                               uint32_t end, type *acc) {                                          \
        column_codes_##width(m, column, by, first, end, acc, 1);                                   \
    }                                                                                              \
    void mf_linear_windows_##width(const mf_matrix *m, const int32_t *taps, uint32_t positions,    \
                                   const int16_t *map, int16_t *seen, const type *bias,            \
                                   type *acc) {                                                    \
        start_##width(m->out, positions, bias, acc);                                               \
        multiply_windows_codes_##width(m, taps, positions, map, seen, acc);                        \
    }                                                                                              \
    void mf_accumulate_windows_##width(const mf_matrix *m, const int32_t *taps,                    \
                                       uint32_t positions, const int32_t *delta, int32_t *seen,    \
                                       type *total) {                                              \
        multiply_windows_delta_##width(m, taps, positions, delta, seen, total);                    \
    }

MF_PRODUCTS(i32, int32_t)
MF_PRODUCTS(i64, int64_t)
