/* Products on AVX2: tiles of 8 rows by 4 columns of bytes.
 *
 * Signed bytes: vpmaddubsw wants an unsigned operand, so |x| w' with w' = w ^ s, s = -1 where x < 0, else 0:
 * w ^ -1 = -w - 1, hence |x| w' = x w - |x| where x < 0. The sum of these |x| is the same for all rows: the
 * correction. Pairs fit int16: 128 * -128 * 2 = -2^15, 127 * 127 * 2 < 2^15.
 * Affine codes: u unsigned of at most 4 bits, x signed; scale * sum(u x) + offset * sum(x). */
#include "fast_avx2.h"

#ifdef __AVX2__

typedef enum { SIXTEEN, SIGNED, AFFINE, TABLE } kind;

/* Bytes of prepared x for a vector of columns, in one plane. */
#define X_BYTES(kind) ((kind) == SIGNED || (kind) == TABLE ? 8 : 4)

static int32_t prepare_16(const mf_packed *p, const int16_t *x, uint8_t *prepared) {
    memcpy(prepared, x, p->columns * sizeof *x);
    memset(prepared + p->columns * sizeof *x, 0, p->columns % 2 * sizeof *x);
    return 0;
}

/* Eight codes, 0 behind the end. */
MF_INLINE __m128i eight(const int16_t *x, size_t left) {
    int16_t end[8] = {0};
    if (left < 8) {
        memcpy(end, x, left * sizeof *x);
        return _mm_loadu_si128((const __m128i *)end);
    }
    return _mm_loadu_si128((const __m128i *)x);
}

MF_INLINE int32_t sum_of_four(__m128i v) {
    v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0x4E));
    v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0xB1));
    return _mm_cvtsi128_si32(v);
}

/* For every four columns: the bytes |x|, then the bytes s. */
static int32_t prepare_signed(const mf_packed *p, const int16_t *x, uint8_t *prepared) {
    const __m128i zero = _mm_setzero_si128();
    const size_t padded = mf_round_up(p->columns, 32);
    __m128i negative = zero;
    size_t j = 0;
    for (; j < p->columns; j += 8, prepared += 16) {
        const __m128i wide = eight(x + j, p->columns - j), v = _mm_packs_epi16(wide, zero);
        const __m128i sign = _mm_cmpgt_epi8(zero, v), size = _mm_abs_epi8(v);
        negative = _mm_add_epi32(negative, _mm_sad_epu8(_mm_and_si128(size, sign), zero));
        _mm_storeu_si128((__m128i *)prepared, _mm_unpacklo_epi32(size, sign));
    }
    memset(prepared, 0, 2 * (padded - j));
    return sum_of_four(negative);
}

static int32_t prepare_affine(const mf_packed *p, const int16_t *x, uint8_t *prepared) {
    const __m128i ones = _mm_set1_epi16(1);
    const size_t padded = mf_round_up(p->columns, 32);
    __m128i sum = _mm_setzero_si128();
    size_t j = 0;
    for (; j < p->columns; j += 8, prepared += 8) {
        const __m128i wide = eight(x + j, p->columns - j);
        sum = _mm_add_epi32(sum, _mm_madd_epi16(wide, ones));
        _mm_storel_epi64((__m128i *)prepared, _mm_packs_epi16(wide, wide));
    }
    memset(prepared, 0, padded - j);
    return p->offset * sum_of_four(sum);
}

/* The bytes of plane i. */
MF_INLINE __m256i plane(__m256i v, int bits, int i) {
    if (bits == 8) {
        return v;
    }
    const __m256i low = _mm256_set1_epi8((char)((1 << bits) - 1));
    return _mm256_and_si256(_mm256_srli_epi16(v, i * bits), low);
}

/* One vector of columns of `tiles` tiles for `steps` steps; all numbers from `how` on are constants. */
MF_INLINE void multiply_vector(const uint8_t *w, const uint8_t *x, size_t stride,
                               const __m128i *tables, __m256i *sum, kind how, int bits, int tiles,
                               int steps) {
    const __m256i ones = _mm256_set1_epi16(1);
    const int planes = how == SIXTEEN ? 1 : 8 / bits;
    __m256i first[16], second[16];
#pragma GCC unroll 16
    for (int i = 0; i < planes * steps; i++) {
        const uint8_t *at = x + (size_t)(i % steps) * stride + i / steps * X_BYTES(how);
        first[i] = broadcast_32(at);
        second[i] = broadcast_32(X_BYTES(how) == 8 ? at + 4 : at);
    }
#pragma GCC unroll 4
    for (int t = 0; t < tiles; t++) {
        const __m256i packed = load(w + 32 * t);
        __m256i part[2]; /* affine: 8 / bits sums of pairs of at most 128 (2^bits - 1) fit int16 */
#pragma GCC unroll 16
        for (int i = 0; i < planes * steps; i++) {
            const int s = i % steps;
            __m256i code = plane(packed, how == SIXTEEN ? 8 : bits, i / steps), add;
            if (how == AFFINE) {
                add = _mm256_maddubs_epi16(code, first[i]);
                part[s] = i < steps ? add : _mm256_add_epi16(part[s], add);
                continue;
            }
            if (how == TABLE) {
                code = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(tables[t]), code);
            }
            if (how == SIXTEEN) {
                add = _mm256_madd_epi16(code, first[i]);
            } else {
                add = _mm256_maddubs_epi16(first[i], _mm256_xor_si256(code, second[i]));
                add = _mm256_madd_epi16(add, ones);
            }
            sum[2 * t + s] = _mm256_add_epi32(sum[2 * t + s], add);
        }
#pragma GCC unroll 2
        for (int s = 0; how == AFFINE && s < steps; s++) {
            const __m256i add = _mm256_madd_epi16(part[s], ones);
            sum[2 * t + s] = _mm256_add_epi32(sum[2 * t + s], add);
        }
    }
}

MF_INLINE void multiply_panel(const uint8_t *w, const uint8_t *x, size_t stride, size_t vectors,
                              const __m128i *tables, __m256i *sum, kind how, int bits, int tiles,
                              int steps) {
    const int planes = how == SIXTEEN ? 1 : 8 / bits;
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        sum[i] = _mm256_setzero_si256();
    }
    for (size_t k = 0; k < vectors; k++, w += tiles * 32, x += planes * X_BYTES(how)) {
        multiply_vector(w, x, stride, tables, sum, how, bits, tiles, steps);
    }
}

MF_INLINE void store_tile(const mf_packed *p, const mf_steps *steps, size_t step, size_t row,
                          __m256i sum, kind how) {
    int32_t *to = steps->acc + step * steps->acc_stride + row;
    const int32_t *bias = steps->bias ? steps->bias + row : NULL;
    if (how == AFFINE) {
        sum = _mm256_sll_epi32(sum, _mm_cvtsi32_si128(p->scale >> 1)); /* scale is 1 or 2 */
    }
    sum = _mm256_add_epi32(sum, _mm256_set1_epi32(steps->correction[step]));
    if (p->rows - row >= 8) { /* masked stores are many times slower */
        _mm256_storeu_si256((__m256i *)to, bias ? _mm256_add_epi32(sum, load(bias)) : sum);
        return;
    }
    const __m256i keep = first_lanes(p->rows - row);
    if (bias) {
        sum = _mm256_add_epi32(sum, _mm256_maskload_epi32(bias, keep));
    }
    _mm256_maskstore_epi32(to, keep, sum);
}

MF_INLINE void multiply_steps(const mf_packed *p, const mf_steps *steps, size_t tile, kind how,
                              int bits, int tiles) {
    const uint8_t *base = (const uint8_t *)p;
    const uint8_t *w = base + p->tiles + tile * p->vectors * 32;
    const __m128i *tables = (const __m128i *)(base + p->tables) + tile;
    __m256i sum[8];
    size_t s = 0;
    for (; s + 2 <= steps->steps; s += 2) {
        multiply_panel(w, steps->x + s * steps->x_stride, steps->x_stride, p->vectors, tables, sum,
                       how, bits, tiles, 2);
        for (int t = 0; t < tiles; t++) {
            store_tile(p, steps, s, (tile + (size_t)t) * 8, sum[2 * t], how);
            store_tile(p, steps, s + 1, (tile + (size_t)t) * 8, sum[2 * t + 1], how);
        }
    }
    if (s < steps->steps) {
        multiply_panel(w, steps->x + s * steps->x_stride, 0, p->vectors, tables, sum, how, bits,
                       tiles, 1);
        for (int t = 0; t < tiles; t++) {
            store_tile(p, steps, s, (tile + (size_t)t) * 8, sum[2 * t], how);
        }
    }
}

MF_INLINE void multiply(const mf_packed *p, const mf_steps *steps, kind how, int bits) {
    const size_t tiles = ((size_t)p->rows + 7) / 8;
    size_t tile = 0;
    for (; tile + 4 <= tiles; tile += 4) {
        multiply_steps(p, steps, tile, how, bits, 4);
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
MULTIPLY(codes_8, SIGNED, 8)
MULTIPLY(affine_4, AFFINE, 4)
MULTIPLY(affine_2, AFFINE, 2)
MULTIPLY(affine_1, AFFINE, 1)
MULTIPLY(table_4, TABLE, 4)
MULTIPLY(table_2, TABLE, 2)
MULTIPLY(table_1, TABLE, 1)

const mf_instructions mf_avx2 = {
    .name = "avx2",
    .tile_rows = 8,
    .products = {[MF_CODES16] = {prepare_16, codes_16},
                 [MF_CODES8] = {prepare_signed, codes_8},
                 [MF_AFFINE4] = {prepare_affine, affine_4},
                 [MF_AFFINE2] = {prepare_affine, affine_2},
                 [MF_AFFINE1] = {prepare_affine, affine_1},
                 [MF_TABLE4] = {prepare_signed, table_4},
                 [MF_TABLE2] = {prepare_signed, table_2},
                 [MF_TABLE1] = {prepare_signed, table_1},
                 [MF_CIRCULANT] = {mf_avx2_prepare_circulant, mf_avx2_circulant}},
    .add_columns = mf_avx2_add_columns,
    .linear_f32 = mf_avx2_linear_f32,
    .elementwise = &mf_avx2_elementwise,
};

#endif
