/* Products on AVX2: tiles of 8 rows by 4 columns of bytes.
 *
 * Signed bytes are multiplied as fast_avx2_codes.c tells. */
#include "fast_avx2_panels.h"

#ifdef __AVX2__

typedef enum { SIXTEEN, TABLE } kind;

/* Bytes of prepared x for a vector of columns, in one plane. */
#define X_BYTES(kind) ((kind) == SIXTEEN ? 4 : 8)

static int32_t prepare_16(const mf_packed *p, const int16_t *x, uint8_t *prepared) {
    memcpy(prepared, x, p->columns * sizeof *x);
    memset(prepared + p->columns * sizeof *x, 0, p->columns % 2 * sizeof *x);
    return 0;
}

static int32_t prepare_signed(const mf_packed *p, const int16_t *x, uint8_t *prepared) {
    __m256i negative = _mm256_setzero_si256();
    for (size_t j = 0; j < p->columns; j += 32, prepared += 64) {
        put_signed(bytes_from(x + j, p->columns - j), prepared, &negative);
    }
    return sum_of_eight(negative);
}

/* The bytes of plane i. */
MF_INLINE __m256i plane(__m256i v, int bits, int i) {
    if (bits == 8) {
        return v;
    }
    const __m256i low = _mm256_set1_epi8((char)((1 << bits) - 1));
    return _mm256_and_si256(_mm256_srli_epi16(v, i * bits), low);
}

/* sum[t * steps + s] = tile t times step s. Tiles from MF_PANEL_TILES on are those of the panel behind. All
 * numbers from `how` on are constants. */
MF_INLINE void multiply_panels(mf_panels at, __m256i *sum, kind how, int bits, int tiles,
                               int steps) {
    const int planes = how == SIXTEEN ? 1 : 8 / bits;
    const int wide = tiles < MF_PANEL_TILES ? tiles : MF_PANEL_TILES;
    const __m256i ones = _mm256_set1_epi16(1);
    const uint8_t *w = at.w, *behind = w + at.vectors * 32 * MF_PANEL_TILES, *x = at.x;
    __m256i total[8];
#pragma GCC unroll 8
    for (int i = 0; i < tiles * steps; i++) {
        total[i] = in_order(_mm256_setzero_si256());
    }
    for (size_t k = 0; k < at.vectors; k++, w += wide * 32, behind += MF_PANEL_TILES * 32) {
        __m256i packed[8];
#pragma GCC unroll 4
        for (int i = 0; i < wide; i += 2) { /* the caches' own are too late */
            prefetch(w + AHEAD + i * 32);
            if (tiles > MF_PANEL_TILES) {
                prefetch(behind + AHEAD + i * 32);
            }
        }
#pragma GCC unroll 8
        for (int i = 0; i < planes; i++, x += X_BYTES(how)) {
            __m256i first[2], second[2];
#pragma GCC unroll 2
            for (int s = 0; s < steps; s++) {
                first[s] = broadcast_32(x + (size_t)s * at.stride);
                second[s] = X_BYTES(how) == 8 ? broadcast_32(x + (size_t)s * at.stride + 4) : ones;
            }
#pragma GCC unroll 8
            for (int t = 0; t < tiles; t++) {
                if (i == 0) {
                    packed[t] = load(t < wide ? w + t * 32 : behind + (t - wide) * 32);
                }
                __m256i code = plane(packed[t], how == SIXTEEN ? 8 : bits, i);
                if (how == TABLE) {
                    code = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(at.tables[t]), code);
                }
#pragma GCC unroll 2
                for (int s = 0; s < steps; s++) {
                    __m256i add;
                    if (how == SIXTEEN) {
                        add = _mm256_madd_epi16(code, first[s]);
                    } else {
                        add = _mm256_maddubs_epi16(first[s], _mm256_xor_si256(code, second[s]));
                        add = _mm256_madd_epi16(add, ones);
                    }
                    add = _mm256_add_epi32(total[t * steps + s], add);
                    total[t * steps + s] = in_order(add);
                }
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < tiles * steps; i++) {
        sum[i] = total[i];
    }
}

#define MULTIPLY(name, how, bits)                                                                  \
    MF_INLINE void name##_panels(mf_panels at, __m256i *sum, int tiles, int steps) {               \
        multiply_panels(at, sum, how, bits, tiles, steps);                                         \
    }                                                                                              \
    static void name(const mf_packed *p, const mf_steps *steps) {                                  \
        each_panel(p, steps, name##_panels, 8, 0);                                                 \
    }

MULTIPLY(codes_16, SIXTEEN, 8)
MULTIPLY(table_4, TABLE, 4)
MULTIPLY(table_2, TABLE, 2)
MULTIPLY(table_1, TABLE, 1)

const mf_instructions mf_avx2 = {
    .name = "avx2",
    .tile_rows = 8,
    .products = {[MF_CODES16] = {prepare_16, codes_16},
                 [MF_CODES8] = {mf_avx2_prepare_codes, mf_avx2_codes_8},
                 [MF_AFFINE4] = {mf_avx2_prepare_affine, mf_avx2_affine_4},
                 [MF_AFFINE2] = {mf_avx2_prepare_affine, mf_avx2_affine_2},
                 [MF_AFFINE1] = {mf_avx2_prepare_affine, mf_avx2_affine_1},
                 [MF_TABLE4] = {prepare_signed, table_4},
                 [MF_TABLE2] = {prepare_signed, table_2},
                 [MF_TABLE1] = {prepare_signed, table_1},
                 [MF_CIRCULANT] = {mf_avx2_prepare_circulant, mf_avx2_circulant}},
    .add_columns = mf_avx2_add_columns,
    .find_active = mf_avx2_find_active,
    .prepare_differences = mf_avx2_prepare_differences,
    .linear_f32 = mf_avx2_linear_f32,
    .elementwise = &mf_avx2_elementwise,
};

#endif
