/* Products on NEON: tiles of 8 rows by 4 columns of bytes, or 2 of int16, in two vectors of 4 rows.
 *
 * sdot adds four products of signed bytes to int32, smlal one of int16; neither saturates. Affine codes
 * have at most 4 bits, so that they are signed bytes as they are: A x = scale * sum(u x) +
 * offset * sum(x), the last of which is the correction. */
#include "fast_neon.h"

#ifdef __ARM_FEATURE_DOTPROD

#include "fast_bytes.h"

typedef enum { SIXTEEN, PLAIN, AFFINE, TABLE } kind;

/* The offset is 0 but for affine codes. */
static int32_t prepare_8(const mf_packed *p, const int16_t *x, uint8_t *prepared) {
    return mf_prepare_8(p, x, prepared, p->offset);
}

/* The bytes of plane i, a constant too. */
MF_INLINE int8x16_t plane(uint8x16_t v, int bits, int i) {
#define SHIFTED(n)                                                                                 \
    case n:                                                                                        \
        v = vshrq_n_u8(v, n);                                                                      \
        break;
    switch (i * bits) {
        SHIFTED(1)
        SHIFTED(2)
        SHIFTED(3)
        SHIFTED(4)
        SHIFTED(5)
        SHIFTED(6)
        SHIFTED(7)
    default:
        break;
    }
#undef SHIFTED
    const int last = bits == 8 || (i + 1) * bits == 8; /* nothing is above */
    return vreinterpretq_s8_u8(last ? v : vandq_u8(v, vdupq_n_u8((uint8_t)((1 << bits) - 1))));
}

/* No instruction: codes are unpacked only when those before are multiplied. Clang would unpack them all first,
 * and has too few registers to keep them in. */
MF_INLINE void in_turn(uint8x16_t *packed, int32x4_t *sum) {
    __asm__ volatile("" : "+w"(*packed), "+w"(*sum));
}

/* `count` vectors of columns of `tiles` tiles for `steps` steps. Planes of columns take the lanes of x one
 * after another. All numbers from `how` on are constants. */
MF_INLINE void multiply_vectors(const uint8_t *w, const uint8_t *x, size_t stride,
                                const int8x16_t *tables, int32x4_t *sum, kind how, int bits,
                                int tiles, int steps, int count) {
    const int planes = 8 / bits;
    int8x16_t in[2][2];
    MF_UNROLL
    for (int i = 0; i < 2 * steps; i++) {
        const uint8_t *at = x + (size_t)(i / 2) * stride + i % 2 * 16;
        in[i / 2][i % 2] = vreinterpretq_s8_u8(i % 2 == 0 || planes == 8 ? vld1q_u8(at)
                                                                         : vdupq_n_u8(0));
    }
    MF_UNROLL
    for (int v = 0; v < count; v++) {
        MF_UNROLL
        for (int h = 0; h < 2 * tiles; h++) { /* halves of tiles */
            uint8x16_t packed = vld1q_u8(w + (v * tiles * 2 + h) * 16);
            const int before = h ? h - 1 : 2 * tiles - 1;
            MF_UNROLL
            for (int s = 0; bits < 8 && s < steps; s++) {
                in_turn(&packed, &sum[before * steps + s]);
            }
            MF_UNROLL
            for (int i = 0; i < planes; i++) {
                const int lane = v * planes + i;
                int8x16_t code = plane(packed, bits, i);
                if (how == TABLE) {
                    code = vqtbl1q_s8(tables[h / 2], vreinterpretq_u8_s8(code));
                }
                MF_UNROLL
                for (int s = 0; s < steps; s++) {
                    sum[h * steps + s] = mf_neon_dot(sum[h * steps + s], code, in[s][lane / 4], lane % 4);
                }
            }
        }
    }
}

/* `count` steps from `first` on of a panel. */
MF_INLINE void multiply_panel(const mf_packed *p, const mf_steps *steps, size_t first, int count,
                              size_t tile, kind how, int bits, int tiles) {
    const uint8_t *base = (const uint8_t *)p;
    const uint8_t *w = base + p->tiles + tile * p->vectors * 32;
    const uint8_t *x = steps->x + first * steps->x_stride;
    const int x_bytes = 32 / bits, together = bits < 4 ? 1 : bits / 2; /* vectors: 16 columns */
    int8x16_t tables[MF_PANEL_TILES];
    int32x4_t sum[MF_PANEL_TILES * 4];
    MF_UNROLL
    for (int t = 0; t < tiles; t++) {
        tables[t] = vdupq_n_s8(0);
        if (how == TABLE) {
            tables[t] = vld1q_s8((const int8_t *)base + p->tables + (tile + (size_t)t) * 16);
        }
    }
    MF_UNROLL
    for (int i = 0; i < 2 * tiles * count; i++) {
        sum[i] = vdupq_n_s32(0);
    }
    size_t left = p->vectors;
    for (; left >= (size_t)together; left -= (size_t)together) {
        multiply_vectors(w, x, steps->x_stride, tables, sum, how, bits, tiles, count, together);
        w += together * tiles * 32;
        x += together * x_bytes;
    }
    for (; left; left--, w += tiles * 32, x += x_bytes) {
        multiply_vectors(w, x, steps->x_stride, tables, sum, how, bits, tiles, count, 1);
    }
    MF_UNROLL
    for (int i = 0; i < 2 * tiles * count; i++) {
        const size_t row = tile * 8 + (size_t)(i / count) * 4;
        if (row < p->rows) {
            /* scale is 1 or 2 */
            const int32x4_t v = how == AFFINE ? vshlq_s32(sum[i], vdupq_n_s32(p->scale >> 1)) : sum[i];
            mf_neon_store(p, steps, first + (size_t)(i % count), row, v);
        }
    }
}

/* One step of a panel of int16: lanes of a sum are the two columns of a row, added in the end. */
MF_INLINE void multiply_panel_16(const mf_packed *p, const mf_steps *steps, size_t step,
                                 size_t tile, int tiles) {
    const int16_t *w = (const int16_t *)(const void *)((const uint8_t *)p + p->tiles) +
                       tile * p->vectors * 16;
    const uint8_t *x = steps->x + step * steps->x_stride;
    int32x4_t sum[MF_PANEL_TILES * 4];
    MF_UNROLL
    for (int i = 0; i < 4 * tiles; i++) {
        sum[i] = vdupq_n_s32(0);
    }
    for (size_t k = 0; k < p->vectors; k++, w += tiles * 16, x += 4) {
        int32_t pair;
        memcpy(&pair, x, sizeof pair);
        const int16x8_t in = vreinterpretq_s16_s32(vdupq_n_s32(pair));
        MF_UNROLL
        for (int h = 0; h < 2 * tiles; h++) {
            const int16x8_t codes = vld1q_s16(w + 8 * h);
            sum[2 * h] = vmlal_s16(sum[2 * h], vget_low_s16(codes), vget_low_s16(in));
            sum[2 * h + 1] = vmlal_high_s16(sum[2 * h + 1], codes, in);
        }
    }
    MF_UNROLL
    for (int h = 0; h < 2 * tiles; h++) {
        const size_t row = tile * 8 + (size_t)h * 4;
        if (row < p->rows) {
            mf_neon_store(p, steps, step, row, vpaddq_s32(sum[2 * h], sum[2 * h + 1]));
        }
    }
}

MF_INLINE void multiply_steps(const mf_packed *p, const mf_steps *steps, size_t tile, kind how,
                              int bits, int tiles) {
    size_t s = 0;
    for (; how == SIXTEEN && s < steps->steps; s++) {
        multiply_panel_16(p, steps, s, tile, tiles);
    }
    for (; how != SIXTEEN && s + 2 <= steps->steps; s += 2) {
        multiply_panel(p, steps, s, 2, tile, how, bits, tiles);
    }
    if (how != SIXTEEN && s < steps->steps) {
        multiply_panel(p, steps, s, 1, tile, how, bits, tiles);
    }
}

MF_INLINE void multiply(const mf_packed *p, const mf_steps *steps, kind how, int bits) {
    const size_t tiles = ((size_t)p->rows + 7) / 8;
    size_t tile = 0;
    for (; tile + MF_PANEL_TILES <= tiles; tile += MF_PANEL_TILES) {
        multiply_steps(p, steps, tile, how, bits, MF_PANEL_TILES);
    }
    switch (tiles - tile) {
    case 3:
        multiply_steps(p, steps, tile, how, bits, 3);
        break;
    case 2:
        multiply_steps(p, steps, tile, how, bits, 2);
        break;
    case 1:
        multiply_steps(p, steps, tile, how, bits, 1);
        break;
    default:
        break;
    }
}

#define MULTIPLY(name, how, bits)                                                                  \
    static void name(const mf_packed *p, const mf_steps *steps) { multiply(p, steps, how, bits); }

MULTIPLY(codes_16, SIXTEEN, 8)
MULTIPLY(codes_8, PLAIN, 8)
MULTIPLY(affine_4, AFFINE, 4)
MULTIPLY(affine_2, AFFINE, 2)
MULTIPLY(affine_1, AFFINE, 1)
MULTIPLY(table_4, TABLE, 4)
MULTIPLY(table_2, TABLE, 2)
MULTIPLY(table_1, TABLE, 1)

const mf_instructions mf_neon = {
    .name = "neon",
    .tile_rows = 8,
    .products = {[MF_CODES16] = {mf_prepare_16, codes_16},
                 [MF_CODES8] = {prepare_8, codes_8},
                 [MF_AFFINE4] = {prepare_8, affine_4},
                 [MF_AFFINE2] = {prepare_8, affine_2},
                 [MF_AFFINE1] = {prepare_8, affine_1},
                 [MF_TABLE4] = {prepare_8, table_4},
                 [MF_TABLE2] = {prepare_8, table_2},
                 [MF_TABLE1] = {prepare_8, table_1},
                 [MF_ROTATED] = {mf_neon_prepare_circulant, mf_neon_circulant}},
    .add_columns = mf_neon_add_columns,
    .find_active = mf_neon_find_active,
    .linear_f32 = mf_neon_linear_f32,
    .elementwise = &mf_neon_elementwise,
};

#endif
