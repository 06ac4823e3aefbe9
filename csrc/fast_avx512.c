/* Products on AVX-512 with VNNI: tiles of 16 rows by 4 columns of bytes, or 2 of int16.
 *
 * vpdpbusd adds four products of an unsigned and a signed byte to int32, vpdpwssd two of int16; neither
 * saturates. The weights are the unsigned ones: codes of at most 8 bits counted from `offset`, or a
 * table's levels + 128. So A x = scale * sum(u x) + offset * sum(x), the last of which is the correction.
 * Elementwise kernels, circulant products and columns are those of AVX2. */
#include "fast_avx512.h"

#ifdef MF_AVX512

#include "fast_bytes.h"

typedef enum { SIXTEEN, AFFINE, TABLE } kind;

static int32_t prepare_affine(const mf_packed *p, const int16_t *x, uint8_t *prepared) {
    return mf_prepare_8(p, x, prepared, p->offset);
}

static int32_t prepare_table(const mf_packed *p, const int16_t *x, uint8_t *prepared) {
    return mf_prepare_8(p, x, prepared, -128);
}

/* The type of sums in loops: with __m512i, GCC 12 copies every sum before and after its instruction. */
typedef int32_t sums_16 __attribute__((vector_size(64)));

MF_INLINE sums_16 multiplied(sums_16 sum, __m512i code, __m512i x, kind how) {
    return (sums_16)(how == SIXTEEN ? _mm512_dpwssd_epi32((__m512i)sum, code, x)
                                    : _mm512_dpbusd_epi32((__m512i)sum, code, x));
}

MF_INLINE __m512i broadcast(const void *at) {
    int32_t v;
    memcpy(&v, at, sizeof v);
    return _mm512_set1_epi32(v);
}

/* By a constant, which the instruction wants as a literal. */
MF_INLINE __m512i shifted_right(__m512i v, int by) {
#define SHIFTED(n)                                                                                 \
    case n:                                                                                        \
        return _mm512_srli_epi16(v, n);
    switch (by) {
        SHIFTED(1)
        SHIFTED(2)
        SHIFTED(3)
        SHIFTED(4)
        SHIFTED(5)
        SHIFTED(6)
        SHIFTED(7)
    default:
        return v;
    }
#undef SHIFTED
}

/* The bytes of plane i. */
MF_INLINE __m512i plane(__m512i v, int bits, int i) {
    const __m512i low = _mm512_set1_epi8((char)((1 << bits) - 1));
    return bits < 8 ? _mm512_and_si512(shifted_right(v, i * bits), low) : v;
}

/* One vector of columns of `tiles` tiles for `steps` steps. Of one step, the planes (of which `from` is the
 * first) take turns in two sums: a single one would wait for the last instruction's result. All numbers
 * from `how` on are constants. */
MF_INLINE void multiply_vector(const uint8_t *w, const uint8_t *x, size_t stride,
                               const __m512i *tables, sums_16 *sum, kind how, int bits, int tiles,
                               int steps, int from) {
    const int planes = bits < 8 ? 8 / bits : 1, sums = steps == 1 ? 2 : 1;
    __m512i packed[MF_PANEL_TILES];
    MF_UNROLL
    for (int t = 0; t < tiles; t++) {
        packed[t] = load_512(w + 64 * t);
    }
    MF_UNROLL
    for (int i = 0; i < planes; i++) {
        __m512i in[4];
        MF_UNROLL
        for (int s = 0; s < steps; s++) {
            in[s] = broadcast(x + (size_t)s * stride + 4 * i);
        }
        MF_UNROLL
        for (int t = 0; t < tiles; t++) {
            __m512i code = plane(packed[t], bits, i);
            if (how == TABLE) {
                code = _mm512_shuffle_epi8(tables[t], code);
            }
            MF_UNROLL
            for (int s = 0; s < steps; s++) {
                const int at = (t * steps + s) * sums + (from + i) % sums;
                sum[at] = multiplied(sum[at], code, in[s], how);
            }
        }
    }
}

MF_INLINE void store_tile(const mf_packed *p, const mf_steps *steps, size_t step, size_t row,
                          __m512i sum, kind how) {
    int32_t *to = steps->acc + step * steps->acc_stride + row;
    const int32_t *bias = steps->bias ? steps->bias + row : NULL;
    const __mmask16 keep = first_16(p->rows - row);
    if (how == AFFINE) {
        sum = _mm512_sll_epi32(sum, _mm_cvtsi32_si128(p->scale >> 1)); /* scale is 1 or 2 */
    }
    sum = _mm512_add_epi32(sum, _mm512_set1_epi32(steps->correction[step]));
    if (bias) {
        sum = _mm512_add_epi32(sum, _mm512_maskz_loadu_epi32(keep, bias));
    }
    _mm512_mask_storeu_epi32(to, keep, sum);
}

/* `count` steps from `first` on of a panel. */
MF_INLINE void multiply_panel(const mf_packed *p, const mf_steps *steps, size_t first, int count,
                              size_t tile, kind how, int bits, int tiles) {
    const uint8_t *base = (const uint8_t *)p;
    const uint8_t *w = base + p->tiles + tile * p->vectors * 64;
    const uint8_t *x = steps->x + first * steps->x_stride;
    const int x_bytes = bits < 8 ? 32 / bits : 4, sums = count == 1 ? 2 : 1;
    const int together = count == 1 && bits >= 8 ? 2 : 1; /* vectors */
    const size_t stride = steps->x_stride;
    __m512i tables[MF_PANEL_TILES];
    sums_16 sum[MF_PANEL_TILES * 4];
    MF_UNROLL
    for (int t = 0; how == TABLE && t < tiles; t++) {
        const __m128i levels = _mm_load_si128((const __m128i *)(base + p->tables) + tile + t);
        tables[t] = _mm512_broadcast_i32x4(_mm_xor_si128(levels, _mm_set1_epi8(-128)));
    }
    MF_UNROLL
    for (int i = 0; i < tiles * count * sums; i++) {
        sum[i] = (sums_16)_mm512_setzero_si512();
    }
    size_t left = p->vectors;
    for (; left >= (size_t)together; left -= (size_t)together) {
        MF_UNROLL
        for (int v = 0; v < together; v++, w += tiles * 64, x += x_bytes) {
            multiply_vector(w, x, stride, tables, sum, how, bits, tiles, count, v);
        }
    }
    if (left) {
        multiply_vector(w, x, stride, tables, sum, how, bits, tiles, count, 0);
    }
    MF_UNROLL
    for (int i = 0; i < tiles * count; i++) {
        const __m512i one = (__m512i)sum[i * sums], two = (__m512i)sum[i * sums + sums - 1];
        store_tile(p, steps, first + (size_t)(i % count), (tile + (size_t)(i / count)) * 16,
                   sums == 2 ? _mm512_add_epi32(one, two) : one, how);
    }
}

MF_INLINE void multiply_steps(const mf_packed *p, const mf_steps *steps, size_t tile, kind how,
                              int bits, int tiles) {
    size_t s = 0;
    for (; s + 4 <= steps->steps; s += 4) {
        multiply_panel(p, steps, s, 4, tile, how, bits, tiles);
    }
    for (; s < steps->steps; s++) {
        multiply_panel(p, steps, s, 1, tile, how, bits, tiles);
    }
}

MF_INLINE void multiply(const mf_packed *p, const mf_steps *steps, kind how, int bits) {
    const size_t tiles = ((size_t)p->rows + 15) / 16;
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

MULTIPLY(codes_16, SIXTEEN, 16)
MULTIPLY(affine_8, AFFINE, 8)
MULTIPLY(affine_4, AFFINE, 4)
MULTIPLY(affine_2, AFFINE, 2)
MULTIPLY(affine_1, AFFINE, 1)
MULTIPLY(table_4, TABLE, 4)
MULTIPLY(table_2, TABLE, 2)
MULTIPLY(table_1, TABLE, 1)

const mf_instructions mf_avx512vnni = {
    .name = "avx512vnni",
    .tile_rows = 16,
    .products = {[MF_CODES16] = {mf_prepare_16, codes_16},
                 [MF_AFFINE8] = {prepare_affine, affine_8},
                 [MF_AFFINE4] = {prepare_affine, affine_4},
                 [MF_AFFINE2] = {prepare_affine, affine_2},
                 [MF_AFFINE1] = {prepare_affine, affine_1},
                 [MF_TABLE4] = {prepare_table, table_4},
                 [MF_TABLE2] = {prepare_table, table_2},
                 [MF_TABLE1] = {prepare_table, table_1},
                 [MF_CIRCULANT] = {mf_avx2_prepare_circulant, mf_avx2_circulant}},
    .add_columns = mf_avx2_add_columns,
    .find_active = mf_avx2_find_active,
    .linear_f32 = mf_avx512_linear_f32,
    .elementwise = &mf_avx2_elementwise,
};

#endif
