#include "matrix_tiles.h"

/* A number of a width that divides 8: it lies in one byte. */
static inline int16_t number_in_byte(const uint8_t *codes, uint32_t at, unsigned bits) {
    const unsigned each = 8 / bits;
    const unsigned byte = codes[at / each];
    return (int16_t)((byte >> (at % each * bits)) & ((1u << bits) - 1));
}

/* Inlined with constant bits: whole bytes between the first and the last numbers. */
static inline void unpack_parts_of_bytes(const uint8_t *codes, uint32_t at, uint32_t n,
                                         unsigned bits, int16_t *numbers) {
    const unsigned each = 8 / bits;
    uint32_t i = 0;
    for (; i < n && (at + i) % each; i++) {
        numbers[i] = number_in_byte(codes, at + i, bits);
    }
    const uint8_t *whole = codes + (at + i) / each;
    for (uint32_t left = (n - i) / each; left; left--, i += each) {
        const unsigned byte = *whole++;
        for (unsigned k = 0; k < each; k++) {
            numbers[i + k] = (int16_t)((byte >> (k * bits)) & ((1u << bits) - 1));
        }
    }
    for (; i < n; i++) {
        numbers[i] = number_in_byte(codes, at + i, bits);
    }
}

/* The stored numbers; those of 16 bits wrap to their two's complement. */
static void unpack_numbers(const uint8_t *codes, uint32_t at, uint32_t n, unsigned bits,
                           int16_t *numbers) {
    switch (bits) {
    case 1:
        unpack_parts_of_bytes(codes, at, n, 1, numbers);
        return;
    case 2:
        unpack_parts_of_bytes(codes, at, n, 2, numbers);
        return;
    case 4:
        unpack_parts_of_bytes(codes, at, n, 4, numbers);
        return;
    case 8:
        for (uint32_t i = 0; i < n; i++) {
            numbers[i] = codes[(size_t)at + i];
        }
        return;
    case 16:
        for (uint32_t i = 0; i < n; i++) {
            const uint8_t *two = codes + 2 * ((size_t)at + i);
            numbers[i] = (int16_t)(two[0] | (two[1] << 8));
        }
        return;
    default: {
        mf_bits reader = mf_bits_at(codes, at, bits);
        for (uint32_t i = 0; i < n; i++) {
            numbers[i] = (int16_t)mf_bits_next(&reader);
        }
    }
    }
}

/* Without branches, which random codes would mispredict. */
static int16_t power_level(int number, int half) {
    const int size = (1 << (number & (half - 1))) >> 1, sign = -(number >= half);
    return (int16_t)((size ^ sign) - sign);
}

/* Sum of +a_i where bit i is set, -a_i elsewhere. */
static int16_t sign_level(int number, const int8_t *a, unsigned bits) {
    int sum = 0;
    for (unsigned i = 0; i < bits; i++) {
        sum += (number >> i) & 1 ? a[i] : -a[i];
    }
    return (int16_t)sum;
}

/* Numbers to levels, with the tables that serve their rows. */
static void look_up(const mf_matrix *m, uint32_t at, uint32_t n, int16_t *levels) {
    const int signs = m->grid == MF_GRID_SIGNS;
    const uint32_t row = m->by_columns ? m->block : m->row_codes; /* codes of a row side by side */
    const uint32_t span = m->rows_per_table * row, tables = m->rows / m->rows_per_table;
    const size_t entries = signs ? m->bits : (size_t)1 << m->bits;
    uint32_t which = at / span % tables, end = span - at % span;
    for (uint32_t i = 0; i < n; end = i + span) {
        const int8_t *table = m->table + which * entries;
        for (; i < n && i < end; i++) {
            levels[i] = signs ? sign_level(levels[i], table, m->bits) : table[levels[i]];
        }
        which = which + 1 == tables ? 0 : which + 1;
    }
}

void mf_unpack_levels(const mf_matrix *m, uint32_t at, uint32_t n, int16_t *levels) {
    const int half = 1 << (m->bits - 1), top = 2 * half - 1;
    unpack_numbers(m->codes, at, n, m->bits, levels);
    switch (m->grid) {
    case MF_GRID_SYMMETRIC:
        for (uint32_t i = 0; i < n && m->bits < MF_MAX_CODE_BITS; i++) {
            levels[i] = (int16_t)((levels[i] ^ half) - half);
        }
        return;
    case MF_GRID_ODD:
        for (uint32_t i = 0; i < n; i++) {
            levels[i] = (int16_t)(2 * levels[i] - top);
        }
        return;
    case MF_GRID_POWER:
        for (uint32_t i = 0; i < n; i++) {
            levels[i] = power_level(levels[i], half);
        }
        return;
    default:
        look_up(m, at, n, levels);
    }
}
