/* Products of stored matrices with vectors of codes (docs/arithmetic.md), straight from the packed bits.
 *
 * Portable reference of every layout and grid: a tile of at most MF_TILE codes is unpacked to int16 and
 * multiplied. No heap, no recursion, less than 1 KiB of stack. The caller owns all buffers.
 */
#ifndef MODELFLEX_MATRIX_H
#define MODELFLEX_MATRIX_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { MF_GRID_SYMMETRIC, MF_GRID_ODD, MF_GRID_POWER, MF_GRID_LEVELS, MF_GRID_SIGNS };
enum {
    MF_LAYOUT_DENSE,
    MF_LAYOUT_CIRCULANT,
    MF_LAYOUT_BLOCKS, /* row_sparse (blocks of 1x1) and block_sparse */
    MF_LAYOUT_N_M
};

enum { MF_MAX_CODE_BITS = 16, MF_MAX_INDEX_BITS = 24, MF_MULTIPLIER_BITS = 6 };

/* One stored array, exactly as its bits lie in an artefact. rows * row_codes < 2^31; places in `index`
 * lie within the map. */
typedef struct {
    const uint8_t *codes;       /* numbers of `bits` bits, little-endian bit stream; one row after
                                   another or, by_columns, one (block) column after another */
    const int8_t *table;        /* levels: [tables][1 << bits]; signs: [tables][bits]; else NULL */
    const uint8_t *multipliers; /* 6-bit stream [rows][groups] of 1 .. 63, or NULL */
    const uint8_t *index;       /* bit stream, sparse layouts; else NULL */
    uint32_t out, inputs;       /* of the map */
    uint32_t rows, row_codes;   /* stored rows (circulant: block rows) and codes of one */
    uint32_t block;             /* circulant: b; blocks: width; n_m: m; else 1 */
    uint32_t kept;              /* blocks: kept blocks of a block row; n_m: n; else 0 */
    uint32_t block_rows;        /* blocks: height; else 1 */
    uint32_t rows_per_table;    /* rows that one table serves; 1 or more also without tables */
    uint32_t groups;            /* multipliers of a row; 0 without */
    uint8_t bits, grid, layout, index_bits;
    uint8_t by_columns; /* dense and circulant layouts only */
} mf_matrix;

/* acc[out] = bias + A x, with bias 0 if NULL; x[inputs] are codes. Exact if every sum of terms fits the
 * type of acc (the bound of docs/arithmetic.md); acc must not overlap the other arrays. Matrices by
 * columns leave out the columns of codes that are 0. */
void mf_linear_i32(const mf_matrix *m, const int16_t *x, const int32_t *bias, int32_t *acc);
void mf_linear_i64(const mf_matrix *m, const int16_t *x, const int64_t *bias, int64_t *acc);

/* total[out] += A delta; |delta| < 2^16, one mask byte for each `mask_block` inputs (the last may be
 * fewer). What is not masked must be 0, as mf_delta_encode leaves it: the mask only saves reading it. */
void mf_accumulate_i32(const mf_matrix *m, const int32_t *delta, const uint8_t *mask,
                       uint32_t mask_block, int32_t *total);
void mf_accumulate_i64(const mf_matrix *m, const int32_t *delta, const uint8_t *mask,
                       uint32_t mask_block, int64_t *total);

/* A row of A times x: matrices by rows, but for circulant ones. */
int32_t mf_row_i32(const mf_matrix *m, uint32_t row, const int16_t *x);
int64_t mf_row_i64(const mf_matrix *m, uint32_t row, const int16_t *x);
/* acc[r] += A[r][column] * by for first <= r < end: dense matrices by columns. */
void mf_add_column_i32(const mf_matrix *m, uint32_t column, int16_t by, uint32_t first, uint32_t end,
                       int32_t *acc);
void mf_add_column_i64(const mf_matrix *m, uint32_t column, int16_t by, uint32_t first, uint32_t end,
                       int64_t *acc);

/* The same at every position of a map: input j at position p is element taps[p][j] of the map, or 0
 * where that is negative. acc and total are [out][positions], bias is [out]; seen[inputs] is scratch. */
void mf_linear_windows_i32(const mf_matrix *m, const int32_t *taps, uint32_t positions,
                           const int16_t *map, int16_t *seen, const int32_t *bias, int32_t *acc);
void mf_linear_windows_i64(const mf_matrix *m, const int32_t *taps, uint32_t positions,
                           const int16_t *map, int16_t *seen, const int64_t *bias, int64_t *acc);
void mf_accumulate_windows_i32(const mf_matrix *m, const int32_t *taps, uint32_t positions,
                               const int32_t *delta, int32_t *seen, int32_t *total);
void mf_accumulate_windows_i64(const mf_matrix *m, const int32_t *taps, uint32_t positions,
                               const int32_t *delta, int32_t *seen, int64_t *total);

#ifdef __cplusplus
}
#endif

#endif
