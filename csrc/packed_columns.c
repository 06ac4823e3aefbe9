/* Accumulation of packed products: columns of the differences that are not 0, or the whole product. */
#include <string.h>

#include "packed.h"
#include "packed_kernels.h"

/* Chunks at the begin of a column that are fetched when it is listed. */
enum { FETCHED = 2 };

static int32_t clamp(int32_t v, int32_t low, int32_t high) {
    return v < low ? low : v > high ? high : v;
}

static uint32_t magnitude(int32_t v) { return (uint32_t)(v < 0 ? -v : v); }

/* The most columns that take no longer than the whole product. In eighths of what a row of one of the product's columns
 * takes: for each active column NEAR a row, or FAR where there are more numbers than fit a second cache, and OWN; for
 * each column FIND, for each row ROW, and ALL (measured on AVX2). */
size_t mf_few_columns(size_t rows, size_t columns) {
    enum { NEAR = 13, FAR = 17, SECOND_CACHE = 1 << 19, OWN = 1870, FIND = 280, ROW = 140, ALL = 28000 };
    const size_t whole = 8 * rows * columns, fixed = FIND * columns + ROW * rows + ALL;
    const size_t each = (rows * columns > SECOND_CACHE ? FAR : NEAR) * rows + OWN;
    return whole < fixed ? 0 : (whole - fixed) / each;
}

/* Adds what is listed. */
static void flush(const mf_packed *p, mf_columns *listed, int32_t *total) {
    for (int k = 0; k < 2; k++) {
        size_t n = listed->count[k];
        for (; n % 4; n++) {
            listed->column[k][n] = listed->column[k][n - 1];
            listed->size[k][n] = 0;
        }
        listed->count[k] = n;
    }
    p->isa->add_columns(p, listed, total);
    listed->count[0] = listed->count[1] = 0;
}

/* Lists a difference that is not 0. */
static inline void add_column(const mf_packed *p, mf_columns *listed, uint32_t j, int32_t delta,
                              int32_t *total) {
    const int8_t *column = (const int8_t *)p + p->by_columns + j * p->column_stride;
    const size_t negative = delta < 0;
    for (uint32_t i = 0; i < FETCHED; i++) {
        __builtin_prefetch(column + i * MF_COLUMN_CHUNK);
    }
    for (uint32_t rest = magnitude(delta), size; rest; rest -= size) {
        const size_t plus = listed->count[0], minus = listed->count[1];
        size = rest < MF_LARGEST_SIZE ? rest : MF_LARGEST_SIZE;
        /* Both: a branch would not be foreseen. */
        listed->column[0][plus] = listed->column[1][minus] = column;
        listed->size[0][plus] = listed->size[1][minus] = (uint8_t)size;
        listed->count[0] = plus + !negative;
        listed->count[1] = minus + negative;
        if (listed->count[negative] == MF_LISTED) {
            flush(p, listed, total);
        }
    }
}

static void add_active(const mf_packed *p, const int32_t *delta, const uint64_t *active, int32_t *total) {
    mf_columns listed;
    listed.count[0] = listed.count[1] = 0;
    for (uint32_t first = 0; first < p->columns; first += 64) {
        for (uint64_t bits = active[first / 64]; bits; bits &= bits - 1) {
            const uint32_t j = first + (uint32_t)__builtin_ctzll(bits);
            add_column(p, &listed, j, delta[j], total);
        }
    }
    flush(p, &listed, total);
}

/* What prepare_differences leaves of the columns of some groups. */
static void add_rest(const mf_packed *p, const int32_t *delta, const uint32_t *limited, size_t groups,
                     int32_t *total) {
    mf_columns listed;
    listed.count[0] = listed.count[1] = 0;
    for (size_t g = 0; g < groups; g++) {
        const uint32_t first = limited[g] * MF_DIFFERENCES, end = first + MF_DIFFERENCES;
        for (uint32_t j = first; j < end && j < p->columns; j++) {
            const uint32_t other = j ^ 1;
            const uint32_t beside = other < p->columns ? magnitude(delta[other]) : 0;
            if (magnitude(delta[j]) + beside > MF_LARGEST_PAIR) {
                const int32_t part = clamp(delta[j], -MF_LARGEST_SIZE, MF_LARGEST_SIZE);
                add_column(p, &listed, j, delta[j] - part, total);
            }
        }
    }
    flush(p, &listed, total);
}

/* Takes what the whole product can of the differences; returns whether something is left in `rest`. */
static int32_t take(const mf_packed *p, const int32_t *from, int32_t *rest, int16_t *now) {
    const int32_t high = p->format == MF_CODES16 ? 32767 : p->format == MF_CIRCULANT ? 255 : 127;
    const int32_t low = high == 127 ? -128 : -high; /* as codes of 8 bits may be */
    const uint32_t columns = p->columns;
    int32_t left = 0;
    for (uint32_t j = 0; j < columns; j++) {
        const int32_t all = from[j], part = clamp(all, low, high);
        now[j] = (int16_t)part;
        rest[j] = all - part;
        left |= all - part;
    }
    return left;
}

static void multiply_differences(const mf_packed *p, const int32_t *delta, int32_t *total, void *scratch,
                                 uint32_t *limited) {
    mf_steps one;
    one.x = scratch;
    one.x_stride = one.acc_stride = 0;
    one.steps = 1;
    one.bias = one.acc = total;
    const size_t groups = p->isa->prepare_differences(p, delta, scratch, one.correction, limited);
    p->isa->products[MF_CODES8].multiply(p, &one);
    if (groups) {
        add_rest(p, delta, limited, groups, total);
    }
}

void mf_packed_accumulate(const void *packed, const int32_t *delta, int32_t *total, void *scratch) {
    const mf_packed *p = packed;
    void *behind = (uint8_t *)scratch + MF_STEPS * p->prepared_bytes;
    int32_t *rest = behind;
    int16_t *now = (int16_t *)(void *)(rest + p->columns);
    for (;;) {
        if (p->few) {
            uint64_t *active = scratch;
            if (p->isa->find_active(delta, p->columns, p->few, active) <= p->few) {
                add_active(p, delta, active, total);
                return;
            }
        }
        if (p->by_columns && p->format == MF_CODES8 && p->isa->prepare_differences) {
            multiply_differences(p, delta, total, scratch, behind);
            return;
        }
        const int32_t left = take(p, delta, rest, now);
        mf_packed_linear(packed, now, 0, 1, total, total, 0, scratch);
        if (!left) {
            return;
        }
        delta = rest;
    }
}
