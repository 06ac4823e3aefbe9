/* Block-circulant products on NEON: y[i] = sum over k of g[k] x[i - k], so that four rows of a block are dot
 * products of rotated inputs, prepared once, with the same four codes of its generator, a lane of a vector.
 * Blocks whose inputs are all 0 are left out. */
#include "fast_neon.h"

#ifdef __ARM_FEATURE_DOTPROD

/* Prepared inputs: the block columns that are not 0, then for each of them [b / 4][b / 4] vectors of four rows
 * by four codes of generators. */
typedef struct {
    uint32_t count, padding;
} prepared_head;

/* Returns whether any is not 0. */
MF_INLINE int rotate(const int16_t *x, int b, uint8_t *rotated) {
    uint8_t back[32]; /* x[b - 1 - n], twice */
    int any = 0;
    for (int n = 0; n < b; n++) {
        back[n] = back[b + n] = (uint8_t)x[b - 1 - n];
        any |= x[n];
    }
    for (int i = 0; i < b; i++) {
        for (int c = 0; c < b / 4; c++) {
            memcpy(rotated + (i / 4 * (b / 4) + c) * 16 + i % 4 * 4, back + b - 1 - i + 4 * c, 4);
        }
    }
    return any;
}

int32_t mf_neon_prepare_circulant(const mf_packed *p, const int16_t *x, uint8_t *prepared) {
    prepared_head *head = (prepared_head *)(void *)prepared;
    uint32_t *column = (uint32_t *)(void *)(head + 1);
    uint8_t *rotated = (uint8_t *)(column + p->vectors);
    const uint32_t b = p->block;
    uint32_t count = 0;
    for (uint32_t q = 0; q < p->vectors; q++, x += b) {
        uint8_t *to = rotated + (size_t)count * b * b;
        const int any = b == 4 ? rotate(x, 4, to) : b == 8 ? rotate(x, 8, to) : rotate(x, 16, to);
        column[count] = q;
        count += any != 0;
    }
    head->count = count;
    return 0;
}

/* Adds one block column of MF_ROTATED_ROWS rows. */
MF_INLINE void add_blocks(const int8_t *w, const int8_t *x, int b, int32x4_t *sum) {
    const int quads = b / 4;
    int8x16_t codes[4];
    MF_UNROLL
    for (int i = 0; i < 4; i++) {
        codes[i] = vld1q_s8(w + 16 * i);
    }
    MF_UNROLL
    for (int i = 0; i < quads * quads; i++) { /* rows 4 r ... of a block by codes 4 c ... */
        const int r = i / quads, c = i % quads;
        const int8x16_t in = vld1q_s8(x + 16 * i);
        MF_UNROLL
        for (int g = 0; g * quads < 16; g++) { /* block rows */
            const int at = g * quads + c;
            sum[g * quads + r] = mf_neon_dot(sum[g * quads + r], in, codes[at / 4], at % 4);
        }
    }
}

MF_INLINE void multiply(const mf_packed *p, const mf_steps *steps, int b) {
    const int8_t *w = (const int8_t *)p + p->tiles;
    for (size_t row = 0; row < p->rows; row += MF_ROTATED_ROWS, w += p->vectors * MF_ROTATED_ROWS) {
        for (size_t s = 0; s < steps->steps; s++) {
            const uint8_t *prepared = steps->x + s * steps->x_stride;
            const uint32_t count = ((const prepared_head *)(const void *)prepared)->count;
            const uint32_t *column =
                (const uint32_t *)(const void *)(prepared + sizeof(prepared_head));
            const int8_t *x = (const int8_t *)(column + p->vectors);
            int32x4_t sum[16];
            MF_UNROLL
            for (int i = 0; i < 16; i++) {
                sum[i] = vdupq_n_s32(0);
            }
            for (uint32_t k = 0; k < count; k++, x += b * b) {
                add_blocks(w + (size_t)column[k] * MF_ROTATED_ROWS, x, b, sum);
            }
            MF_UNROLL
            for (size_t i = 0; i < 16; i++) {
                if (row + 4 * i < p->rows) { /* whole vectors, as blocks have */
                    mf_neon_store(p, steps, s, row + 4 * i, sum[i]);
                }
            }
        }
    }
}

void mf_neon_circulant(const mf_packed *p, const mf_steps *steps) {
    if (p->block == 4) {
        multiply(p, steps, 4);
    } else if (p->block == 8) {
        multiply(p, steps, 8);
    } else {
        multiply(p, steps, 16);
    }
}

#endif
