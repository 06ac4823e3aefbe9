/* Columns of active inputs on AVX2, and the search for them.
 *
 * Four columns at a time: their bytes side by side make tiles as those of fast_avx2.c, of 32 rows by 4 columns; sizes
 * are the unsigned operand of vpmaddubsw (128 * 127 * 2 < 2^15). Totals of 64 rows stay in registers for all that is
 * listed. */
#include "fast_avx2.h"

#ifdef __AVX2__

/* Bytes of a column that are fetched before they are added. */
enum { COLUMN_AHEAD = 2 * MF_COLUMN_CHUNK };

MF_INLINE __m256i products(__m256i size, __m256i codes) {
    return _mm256_madd_epi16(_mm256_maddubs_epi16(size, codes), _mm256_set1_epi16(1));
}

MF_INLINE __m256i sum_of(__m256i total, __m256i part, int negative) {
    return in_order(negative ? _mm256_sub_epi32(total, part) : _mm256_add_epi32(total, part));
}

/* Listed columns of one sign, rows row ... row + 32 halves - 1. Halves of vectors are unpacked for themselves: four
 * totals have rows 0-3 and 16-19, 4-7 and 20-23, 8-11 and 24-27, 12-15 and 28-31. */
MF_INLINE void add_quads(const mf_columns *listed, int negative, size_t row, __m256i *total,
                         int halves) {
    const int8_t *const *column = listed->column[negative];
    for (size_t k = 0; k < listed->count[negative]; k += 4) {
        const __m256i size = broadcast_32(listed->size[negative] + k);
        const int8_t *a = column[k] + row, *b = column[k + 1] + row;
        const int8_t *c = column[k + 2] + row, *d = column[k + 3] + row;
        prefetch(a + COLUMN_AHEAD);
        prefetch(b + COLUMN_AHEAD);
        prefetch(c + COLUMN_AHEAD);
        prefetch(d + COLUMN_AHEAD);
#pragma GCC unroll 2
        for (int i = 0; i < halves; i++) {
            __m256i *to = total + 4 * i;
            const __m256i va = load(a + 32 * i), vb = load(b + 32 * i);
            const __m256i vc = load(c + 32 * i), vd = load(d + 32 * i);
            const __m256i ab = _mm256_unpacklo_epi8(va, vb), cd = _mm256_unpacklo_epi8(vc, vd);
            to[0] = sum_of(to[0], products(size, _mm256_unpacklo_epi16(ab, cd)), negative);
            to[1] = sum_of(to[1], products(size, _mm256_unpackhi_epi16(ab, cd)), negative);
            const __m256i ef = _mm256_unpackhi_epi8(va, vb), gh = _mm256_unpackhi_epi8(vc, vd);
            to[2] = sum_of(to[2], products(size, _mm256_unpacklo_epi16(ef, gh)), negative);
            to[3] = sum_of(to[3], products(size, _mm256_unpackhi_epi16(ef, gh)), negative);
        }
    }
}

/* Totals of 32 rows in the order of add_quads, or back. */
MF_INLINE void turn(__m256i *total) {
    const __m256i a = total[0], b = total[1], c = total[2], d = total[3];
    total[0] = _mm256_permute2x128_si256(a, c, 0x20);
    total[1] = _mm256_permute2x128_si256(a, c, 0x31);
    total[2] = _mm256_permute2x128_si256(b, d, 0x20);
    total[3] = _mm256_permute2x128_si256(b, d, 0x31);
}

MF_INLINE void turn_back(__m256i *total) {
    const __m256i a = total[0], b = total[1], c = total[2], d = total[3];
    total[0] = _mm256_permute2x128_si256(a, b, 0x20);
    total[1] = _mm256_permute2x128_si256(c, d, 0x20);
    total[2] = _mm256_permute2x128_si256(a, b, 0x31);
    total[3] = _mm256_permute2x128_si256(c, d, 0x31);
}

MF_INLINE void add_rows(const mf_columns *listed, size_t row, int32_t *to, int halves) {
    __m256i total[8];
#pragma GCC unroll 8
    for (int i = 0; i < 4 * halves; i++) {
        total[i] = load(to + 8 * i);
    }
#pragma GCC unroll 2
    for (int i = 0; i < halves; i++) {
        turn(total + 4 * i);
    }
    add_quads(listed, 0, row, total, halves);
    add_quads(listed, 1, row, total, halves);
#pragma GCC unroll 2
    for (int i = 0; i < halves; i++) {
        turn_back(total + 4 * i);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 4 * halves; i++) {
        _mm256_storeu_si256((__m256i *)(to + 8 * i), total[i]);
    }
}

void mf_avx2_add_columns(const mf_packed *p, const mf_columns *listed, int32_t *total) {
    size_t row = 0;
    for (; row + MF_COLUMN_CHUNK <= p->rows; row += MF_COLUMN_CHUNK) {
        add_rows(listed, row, total + row, 2);
    }
    for (; row < p->rows; row += 32) {
        int32_t end[32] = {0};
        const size_t left = p->rows - row, bytes = (left < 32 ? left : 32) * sizeof *end;
        memcpy(end, total + row, bytes);
        add_rows(listed, row, end, 1);
        memcpy(total + row, end, bytes);
    }
}

/* A bit for each of 32 numbers of which `left` are there, whether it is not 0. */
MF_INLINE uint32_t active_of(const int32_t *v, size_t left) {
    const __m256i none = _mm256_setzero_si256();
    __m256i zero[4];
    for (size_t i = 0; i < 4; i++) {
        zero[i] = _mm256_cmpeq_epi32(eight_from(v + 8 * i, left < 8 * i ? 0 : left - 8 * i), none);
    }
    const __m256i a = _mm256_packs_epi32(zero[0], zero[1]), b = _mm256_packs_epi32(zero[2], zero[3]);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    return ~(uint32_t)_mm256_movemask_epi8(
        _mm256_permutevar8x32_epi32(_mm256_packs_epi16(a, b), order));
}

size_t mf_avx2_find_active(const int32_t *delta, size_t n, size_t most, uint64_t *active) {
    size_t found = 0;
    for (size_t j = 0; j < n && found <= most; j += 64) {
        const size_t left = n - j;
        const uint64_t behind = left > 32 ? active_of(delta + j + 32, left - 32) : 0;
        active[j / 64] = behind << 32 | active_of(delta + j, left);
        found += (size_t)_mm_popcnt_u64(active[j / 64]);
    }
    return found;
}

#endif
