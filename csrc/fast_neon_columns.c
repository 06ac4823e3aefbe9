/* Columns of active inputs on NEON, and the search for them. Four columns at a time: their bytes side by side are what
 * a dot product takes. Totals of 32 rows stay in registers for all that is listed. */
#include "fast_neon.h"

#ifdef __ARM_FEATURE_DOTPROD

enum { ROWS = 32 };

MF_INLINE int8x16_t as_bytes(int16x8_t v) { return vreinterpretq_s8_s16(v); }

MF_INLINE int16x8_t as_pairs(int8x16_t v) { return vreinterpretq_s16_s8(v); }

/* Listed columns of one sign. */
MF_INLINE void add_quads(const mf_columns *listed, int negative, size_t row, int32x4_t *total) {
    const int8_t *const *column = listed->column[negative];
    for (size_t k = 0; k < listed->count[negative]; k += 4) {
        int32_t four;
        memcpy(&four, listed->size[negative] + k, sizeof four);
        const int8x16_t size = vreinterpretq_s8_s32(vdupq_n_s32(four));
        const int8x16_t by = negative ? vnegq_s8(size) : size;
        MF_UNROLL
        for (int i = 0; i < ROWS / 16; i++) {
            const size_t at = row + 16 * (size_t)i;
            const int8x16_t a = vld1q_s8(column[k] + at), b = vld1q_s8(column[k + 1] + at);
            const int8x16_t c = vld1q_s8(column[k + 2] + at), d = vld1q_s8(column[k + 3] + at);
            const int16x8_t ab = as_pairs(vzip1q_s8(a, b)), cd = as_pairs(vzip1q_s8(c, d));
            const int16x8_t ef = as_pairs(vzip2q_s8(a, b)), gh = as_pairs(vzip2q_s8(c, d));
            int32x4_t *to = total + 4 * i;
            to[0] = vdotq_s32(to[0], as_bytes(vzip1q_s16(ab, cd)), by);
            to[1] = vdotq_s32(to[1], as_bytes(vzip2q_s16(ab, cd)), by);
            to[2] = vdotq_s32(to[2], as_bytes(vzip1q_s16(ef, gh)), by);
            to[3] = vdotq_s32(to[3], as_bytes(vzip2q_s16(ef, gh)), by);
        }
    }
}

MF_INLINE void add_rows(const mf_columns *listed, size_t row, int32_t *to) {
    int32x4_t total[ROWS / 4];
    MF_UNROLL
    for (int i = 0; i < ROWS / 4; i++) {
        total[i] = vld1q_s32(to + 4 * i);
    }
    add_quads(listed, 0, row, total);
    add_quads(listed, 1, row, total);
    MF_UNROLL
    for (int i = 0; i < ROWS / 4; i++) {
        vst1q_s32(to + 4 * i, total[i]);
    }
}

void mf_neon_add_columns(const mf_packed *p, const mf_columns *listed, int32_t *total) {
    size_t row = 0;
    for (; row + ROWS <= p->rows; row += ROWS) {
        add_rows(listed, row, total + row);
    }
    if (row < p->rows) {
        int32_t end[ROWS] = {0};
        memcpy(end, total + row, (p->rows - row) * sizeof *end);
        add_rows(listed, row, end);
        memcpy(total + row, end, (p->rows - row) * sizeof *end);
    }
}

size_t mf_neon_find_active(const int32_t *delta, size_t n, size_t most, uint64_t *active) {
    size_t found = 0;
    for (size_t j = 0; j < n && found <= most; j += 64) {
        const size_t left = n - j, count = left < 64 ? left : 64;
        uint64_t bits = 0;
        for (size_t i = 0; i < count; i++) {
            bits |= (uint64_t)(delta[j + i] != 0) << i;
        }
        active[j / 64] = bits;
        found += (size_t)__builtin_popcountll(bits);
    }
    return found;
}

#endif
