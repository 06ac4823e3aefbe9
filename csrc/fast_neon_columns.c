/* Columns of a few active inputs on NEON, 64 rows at a time, added to a vector of totals. */
#include "fast_neon.h"

#ifdef __ARM_FEATURE_DOTPROD

/* The difference of a run's column i, signed again. */
MF_INLINE int8x8_t difference(const mf_column_run *run, int i) {
    const int32_t size = (int32_t)(run->magnitude[i / 2] >> (8 * (i % 2)) & 255);
    const int negative = (run->sign[i / 2] >> (8 * (i % 2)) & 1) != 0;
    return vdup_n_s8((int8_t)(negative ? -size : size));
}

MF_INLINE void add_chunk(const int8_t *base, size_t stride, const mf_column_run *run, int columns,
                         int32_t *total) {
    int16x8_t sum[MF_COLUMN_CHUNK / 8]; /* see MF_RUN_PAIRS for the range */
    MF_UNROLL
    for (int i = 0; i < MF_COLUMN_CHUNK / 8; i++) {
        sum[i] = vdupq_n_s16(0);
    }
    MF_UNROLL
    for (int k = 0; k < columns; k++) {
        const int8_t *column = base + run->column[k] * stride;
        const int8x8_t by = difference(run, k);
        MF_UNROLL
        for (int i = 0; i < MF_COLUMN_CHUNK / 16; i++) {
            const int8x16_t codes = vld1q_s8(column + 16 * i);
            sum[2 * i] = vmlal_s8(sum[2 * i], vget_low_s8(codes), by);
            sum[2 * i + 1] = vmlal_s8(sum[2 * i + 1], vget_high_s8(codes), by);
        }
    }
    MF_UNROLL
    for (int i = 0; i < MF_COLUMN_CHUNK / 8; i++, total += 8) {
        vst1q_s32(total, vaddw_s16(vld1q_s32(total), vget_low_s16(sum[i])));
        vst1q_s32(total + 4, vaddw_s16(vld1q_s32(total + 4), vget_high_s16(sum[i])));
    }
}

MF_INLINE void add_all(const mf_packed *p, const mf_column_run *run, int columns, int32_t *total) {
    const int8_t *base = (const int8_t *)p + p->by_columns;
    size_t row = 0;
    for (; row + MF_COLUMN_CHUNK <= p->rows; row += MF_COLUMN_CHUNK) {
        add_chunk(base + row, p->column_stride, run, columns, total + row);
    }
    if (row < p->rows) {
        int32_t end[MF_COLUMN_CHUNK] = {0};
        memcpy(end, total + row, (p->rows - row) * sizeof *end);
        add_chunk(base + row, p->column_stride, run, columns, end);
        memcpy(total + row, end, (p->rows - row) * sizeof *end);
    }
}

void mf_neon_add_columns(const mf_packed *p, const mf_column_run *run, int32_t *total) {
    switch (run->pairs) {
    case 1:
        add_all(p, run, 2, total);
        break;
    case 2:
        add_all(p, run, 4, total);
        break;
    case 3:
        add_all(p, run, 6, total);
        break;
    default:
        add_all(p, run, 2 * MF_RUN_PAIRS, total);
    }
}

#endif
