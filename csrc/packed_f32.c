/* Packing of float32 weights, and the products of packed ones. */
#include <string.h>

#include "packed.h"
#include "packed_kernels.h"

size_t mf_packed_f32_bytes(uint32_t out, uint32_t inputs) {
    return MF_HEAD + mf_round_up(mf_round_up(out, MF_TILE_F32) * inputs * sizeof(float), MF_ALIGN);
}

void mf_pack_f32(const float *w, uint32_t out, uint32_t inputs, void *packed) {
    mf_packed *p = packed;
    memset(packed, 0, mf_packed_f32_bytes(out, inputs));
    p->isa = mf_chosen();
    p->rows = out;
    p->columns = inputs;
    float *tiles = (float *)(void *)((uint8_t *)packed + MF_HEAD);
    const size_t all = mf_round_up(out, MF_TILE_F32) / MF_TILE_F32;
    for (size_t r = 0; r < out; r++) {
        const size_t tile = r / MF_TILE_F32, first = tile / MF_PANEL_F32 * MF_PANEL_F32;
        const size_t wide = all - first < MF_PANEL_F32 ? all - first : MF_PANEL_F32;
        for (size_t j = 0; j < inputs; j++) {
            const size_t vector = first * inputs + j * wide + (tile - first);
            tiles[vector * MF_TILE_F32 + r % MF_TILE_F32] = w[r * inputs + j];
        }
    }
}

void mf_packed_linear_f32(const void *packed, const float *x, size_t x_stride, size_t steps,
                          const float *bias, float *y, size_t y_stride) {
    const mf_packed *p = packed;
    const float *tiles = (const float *)(const void *)((const uint8_t *)packed + MF_HEAD);
    p->isa->linear_f32(tiles, p->rows, p->columns, x, x_stride, steps, bias, y, y_stride);
}

/* A sum for every row of a panel, of the columns at `places` only. */
static void add_panel(const float *panel, size_t rows, const float *x, const uint32_t *places,
                      size_t count, float *sums) {
    for (size_t k = 0; k < count; k++) {
        const float *column = panel + places[k] * rows, by = x[places[k]];
        for (size_t r = 0; r < rows; r++) {
            sums[r] += by * column[r];
        }
    }
}

void mf_packed_nonzero_f32(const void *packed, const float *x, const float *bias, float *y,
                           uint32_t *places) {
    enum { MOST = MF_PANEL_F32 * MF_TILE_F32 };
    const mf_packed *p = packed;
    const float *panel = (const float *)(const void *)((const uint8_t *)packed + MF_HEAD);
    size_t count = 0;
    for (uint32_t j = 0; j < p->columns; j++) {
        if (x[j] != 0) {
            places[count++] = j;
        }
    }
    for (size_t first = 0; first < p->rows; first += MOST) {
        const size_t left = p->rows - first, used = left < MOST ? left : MOST;
        const size_t rows = mf_round_up(used, MF_TILE_F32);
        float sums[MOST] = {0};
        if (bias) {
            memcpy(sums, bias + first, used * sizeof *sums);
        }
        add_panel(panel, rows, x, places, count, sums);
        memcpy(y + first, sums, used * sizeof *sums);
        panel += rows * p->columns;
    }
}
