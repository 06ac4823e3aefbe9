/* Reading the bit streams of a stored matrix: tiles of codes, multipliers, places of sparse codes. */
#ifndef MODELFLEX_MATRIX_TILES_H
#define MODELFLEX_MATRIX_TILES_H

#include <stddef.h>

#include "fixed_point.h"
#include "matrix.h"

#ifdef __cplusplus
extern "C" {
#endif

#define MF_TILE 64

MF_ASSERT(products_fit_32_bits, (int64_t)32768 * 65535 <= INT32_MAX);
MF_ASSERT(tiles_start_at_bytes, MF_TILE % 8 == 0);

/* levels[n] = the integers (without multipliers) behind the codes number at ... at + n - 1 of the stream,
 * n <= MF_TILE. */
void mf_unpack_levels(const mf_matrix *m, uint32_t at, uint32_t n, int16_t *levels);

/* Numbers of a bit stream in their order; no byte behind the last number is read. */
typedef struct {
    const uint8_t *next;
    uint32_t window;
    unsigned held, bits;
} mf_bits;

MF_ASSERT(window_holds_a_number_and_a_byte, MF_MAX_INDEX_BITS + 8 <= 32);

/* Starts at number `at`. The byte of its first bit is found without multiplying at * bits. */
static inline mf_bits mf_bits_at(const uint8_t *stream, uint32_t at, unsigned bits) {
    const uint32_t ahead = (at & 7u) * bits;
    mf_bits reader = {stream, 0, 0, bits};
    if (bits) {
        reader.next += (size_t)(at >> 3) * bits + (ahead >> 3);
    }
    if (ahead & 7u) {
        reader.window = (uint32_t)*reader.next++ >> (ahead & 7u);
        reader.held = 8 - (ahead & 7u);
    }
    return reader;
}

static inline uint32_t mf_bits_next(mf_bits *reader) {
    while (reader->held < reader->bits) {
        reader->window |= (uint32_t)*reader->next++ << reader->held;
        reader->held += 8;
    }
    const uint32_t number = reader->window & ((UINT32_C(1) << reader->bits) - 1);
    reader->window >>= reader->bits;
    reader->held -= reader->bits;
    return number;
}

/* The multiplier of a group, counted row by row. */
static inline int32_t mf_multiplier(const mf_matrix *m, uint32_t group) {
    mf_bits reader = mf_bits_at(m->multipliers, group, MF_MULTIPLIER_BITS);
    return (int32_t)mf_bits_next(&reader);
}

/* The columns of a row's codes in a sparse layout, one after another. */
typedef struct {
    mf_bits index;
    uint32_t base; /* blocks: first column of the current block; n_m: of the current group */
    uint32_t left; /* codes still to come in it */
} mf_places;

static inline mf_places mf_places_of(const mf_matrix *m, uint32_t row) {
    const uint32_t first =
        m->layout == MF_LAYOUT_N_M ? row * m->row_codes : row / m->block_rows * m->kept;
    mf_places places = {mf_bits_at(m->index, first, m->index_bits), 0, 0};
    if (m->layout == MF_LAYOUT_N_M) {
        places.left = m->kept;
    }
    return places;
}

static inline uint32_t mf_next_place(const mf_matrix *m, mf_places *places) {
    if (m->layout == MF_LAYOUT_N_M) {
        if (places->left == 0) {
            places->left = m->kept;
            places->base += m->block;
        }
        places->left--;
        return places->base + mf_bits_next(&places->index);
    }
    if (places->left == 0) {
        places->left = m->block;
        places->base = mf_bits_next(&places->index) * m->block;
    }
    return places->base + (m->block - places->left--);
}

#ifdef __cplusplus
}
#endif

#endif
