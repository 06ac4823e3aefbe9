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
                          const float *bias, float *y, size_t y_stride, void *scratch) {
    const mf_packed *p = packed;
    const float *tiles = (const float *)(const void *)((const uint8_t *)packed + MF_HEAD);
    (void)scratch;
    p->isa->linear_f32(tiles, p->rows, p->columns, x, x_stride, steps, bias, y, y_stride);
}
