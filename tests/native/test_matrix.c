/* Brute-force checks of products of stored matrices, under AddressSanitizer and UBSan (make
 * native-test): random matrices of every layout, grid and width are written bit by bit into buffers
 * that are allocated to the byte, together with the dense matrix that they mean. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "matrix.h"
#include "matrix_tiles.h"

enum { MOST = 160, POSITIONS = 3, CASES = 30 };

static long checks, failures;
static char described[200];

static void check_equal(const char *what, long long found, long long expected) {
    checks++;
    if (found != expected && ++failures <= 20) {
        fprintf(stderr, "FAILED %s (%s): found %lld, expected %lld\n", what, described, found,
                expected);
    }
}

static void *allocate(size_t bytes) {
    void *memory = calloc(bytes ? bytes : 1, 1);
    if (!memory) {
        fputs("out of memory\n", stderr);
        exit(1);
    }
    return memory;
}

/* A copy to the byte, so that reading behind its end is seen. */
static void *exactly(const void *from, size_t bytes) {
    void *memory = malloc(bytes);
    if (memory) {
        memcpy(memory, from, bytes);
    }
    return memory;
}

/* A linear congruential generator: the same numbers everywhere. 0 ... below - 1. */
static uint32_t below(uint32_t n) {
    static uint64_t state = 42;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % n;
}

static uint32_t divisor_of(uint32_t n) {
    uint32_t d = 1 + below(n);
    while (n % d) {
        d--;
    }
    return d;
}

static uint8_t *stream(uint32_t count, unsigned bits) {
    return allocate(((size_t)count * bits + 7) / 8);
}

static void put(uint8_t *to, uint32_t at, unsigned bits, uint32_t number) {
    for (unsigned i = 0; i < bits; i++) {
        const size_t bit = (size_t)at * bits + i;
        to[bit / 8] = (uint8_t)(to[bit / 8] | (((number >> i) & 1) << (bit % 8)));
    }
}

/* What a number means on a grid, from the table of docs/arithmetic.md. */
static int level(const mf_matrix *m, uint32_t row, uint32_t number) {
    const int n = (int)number, count = 1 << m->bits;
    const int8_t *table = m->table;
    int sum = 0;
    switch (m->grid) {
    case MF_GRID_SYMMETRIC:
        return n < count / 2 ? n : n - count;
    case MF_GRID_ODD:
        return 2 * n - (count - 1);
    case MF_GRID_POWER:
        n % (count / 2) ? sum = 1 << (n % (count / 2) - 1) : 0;
        return n < count / 2 ? sum : -sum;
    case MF_GRID_LEVELS:
        return table[row / m->rows_per_table * (uint32_t)count + number];
    default:
        for (unsigned i = 0; i < m->bits; i++) {
            const int a = table[row / m->rows_per_table * m->bits + i];
            sum += number / (1u << i) % 2 ? a : -a;
        }
        return sum;
    }
}

/* A random matrix and the dense one it means. */
typedef struct {
    mf_matrix m;
    uint8_t *codes, *multipliers, *index;
    int8_t *table;
    int64_t dense[MOST][MOST];
} sample;

static void choose_sizes(mf_matrix *m, int layout) {
    const uint32_t p = 1 + below(9), q = 1 + below(9), w = below(6) ? 1 + below(9) : 65 + below(15);
    const int tall = w < 10;
    m->layout = (uint8_t)layout;
    m->block = m->block_rows = 1;
    m->kept = 0;
    m->rows = tall ? p * (1 + below(9)) : p;
    m->inputs = tall ? q * w : (1 + q % 2) * w;
    m->row_codes = m->inputs;
    if (layout == MF_LAYOUT_CIRCULANT) {
        m->rows = tall ? p : 1 + p % 2;
        m->block = w;
    } else if (layout == MF_LAYOUT_BLOCKS) {
        m->block = below(3) ? w : 1;
        m->block_rows = divisor_of(m->rows);
        m->kept = 1 + below(m->inputs / m->block);
        m->row_codes = m->kept * m->block;
    } else if (layout == MF_LAYOUT_N_M) {
        m->block = w;
        m->kept = 1 + below(w);
        m->row_codes = m->inputs / w * m->kept;
    }
    m->out = layout == MF_LAYOUT_CIRCULANT ? m->rows * m->block : m->rows;
}

static void choose_tables(sample *s, int grid, unsigned bits) {
    mf_matrix *m = &s->m;
    const uint32_t entries = grid == MF_GRID_SIGNS ? bits : 1u << bits;
    const uint32_t tables = divisor_of(m->rows);
    m->grid = (uint8_t)grid;
    m->bits = (uint8_t)bits;
    m->rows_per_table = m->rows / tables;
    s->table = NULL;
    if (grid >= MF_GRID_LEVELS) {
        s->table = allocate(tables * entries);
        for (uint32_t i = 0; i < tables * entries; i++) {
            s->table[i] = (int8_t)((int)below(255) - 127);
        }
    }
    m->table = s->table;
    m->groups = below(2) ? divisor_of(m->row_codes) : 0;
    s->multipliers = m->groups ? stream(m->rows * m->groups, MF_MULTIPLIER_BITS) : NULL;
    m->multipliers = s->multipliers;
}

/* `count` different places below n in random order. */
static void choose_places(uint32_t n, uint32_t count, uint32_t *places) {
    uint32_t all[MOST];
    for (uint32_t i = 0; i < n; i++) {
        all[i] = i;
    }
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t k = i + below(n - i), taken = all[k];
        all[k] = all[i];
        all[i] = places[i] = taken;
    }
}

/* Column of every code of every row; writes the index. */
static void choose_columns(sample *s, uint32_t columns[MOST][MOST]) {
    mf_matrix *m = &s->m;
    const int pairs = m->layout == MF_LAYOUT_N_M;
    const uint32_t span = pairs ? m->block : m->inputs / m->block;
    uint32_t places[MOST], at = 0, bits = 0;
    s->index = NULL;
    m->index_bits = 0;
    if (!m->kept) {
        m->index = NULL;
        return;
    }
    while ((1u << bits) < span) {
        bits++;
    }
    m->index_bits = (uint8_t)bits;
    s->index = stream(pairs ? m->rows * m->row_codes : m->rows / m->block_rows * m->kept, bits);
    for (uint32_t r = 0; r < m->rows; r++) {
        for (uint32_t j = 0; j < m->row_codes; j++) {
            if (pairs ? j % m->kept == 0 : j == 0 && r % m->block_rows == 0) {
                choose_places(span, m->kept, places);
                for (uint32_t k = 0; k < m->kept; k++) {
                    put(s->index, at++, bits, places[k]);
                }
            }
            columns[r][j] = pairs ? j / m->kept * m->block + places[j % m->kept]
                                  : places[j / m->block] * m->block + j % m->block;
        }
    }
    m->index = s->index;
}

static void choose_codes(sample *s) {
    static uint32_t columns[MOST][MOST];
    mf_matrix *m = &s->m;
    const uint32_t b = m->block, width = m->groups ? m->row_codes / m->groups : 1;
    uint32_t multipliers[MOST];
    choose_columns(s, columns);
    s->codes = stream(m->rows * m->row_codes, m->bits);
    m->codes = s->codes;
    memset(s->dense, 0, sizeof s->dense);
    for (uint32_t r = 0; r < m->rows; r++) {
        for (uint32_t g = 0; g < m->groups; g++) {
            multipliers[g] = 1 + below(63);
            put(s->multipliers, r * m->groups + g, MF_MULTIPLIER_BITS, multipliers[g]);
        }
        for (uint32_t j = 0; j < m->row_codes; j++) {
            uint32_t number = below(1u << m->bits), at = r * m->row_codes + j;
            if (m->grid == MF_GRID_SYMMETRIC && number == 1u << (m->bits - 1)) {
                number--;
            }
            if (m->by_columns) {
                at = j / b * (m->rows * b) + r * b + j % b;
            }
            put(s->codes, at, m->bits, number);
            const int64_t code = (int64_t)level(m, r, number) * (m->groups ? multipliers[j / width] : 1);
            if (m->layout == MF_LAYOUT_CIRCULANT) {
                for (uint32_t i = 0; i < b; i++) { /* the generator is the first column */
                    s->dense[r * b + (j + i) % b][j / b * b + i] = code;
                }
            } else {
                s->dense[r][m->kept ? columns[r][j] : j] = code;
            }
        }
    }
}

static int64_t expected(const sample *s, uint32_t r, const int32_t *x, const int32_t *taps) {
    int64_t sum = 0;
    for (uint32_t j = 0; j < s->m.inputs; j++) {
        const int32_t v = !taps ? x[j] : (taps[j] < 0 ? 0 : x[taps[j]]);
        sum += s->dense[r][j] * v;
    }
    return sum;
}

/* The four functions of one type against the dense matrix. */
#define CHECK_WIDTH(width, type)                                                                   \
    static void check_##width(const sample *s, const int16_t *codes, const int32_t *delta,         \
                              const uint8_t *mask, uint32_t mask_block, const int32_t *taps) {     \
        const mf_matrix *m = &s->m;                                                                \
        const uint32_t out = m->out;                                                               \
        type *bias = allocate(out * sizeof(type));                                                 \
        type *acc = allocate(out * POSITIONS * sizeof(type));                                      \
        int16_t *seen = allocate(m->inputs * sizeof *seen);                                        \
        int32_t *seen_delta = allocate(m->inputs * sizeof *seen_delta);                            \
        int32_t wide[MOST];                                                                        \
        for (uint32_t j = 0; j < m->inputs; j++) {                                                 \
            wide[j] = codes[j];                                                                    \
        }                                                                                          \
        for (uint32_t r = 0; r < out; r++) {                                                       \
            bias[r] = (type)below(2000) - 1000;                                                    \
        }                                                                                          \
        mf_linear_##width(m, codes, bias, acc);                                                    \
        for (uint32_t r = 0; r < out; r++) {                                                       \
            check_equal("linear " #width, acc[r], bias[r] + expected(s, r, wide, NULL));           \
        }                                                                                          \
        mf_linear_##width(m, codes, NULL, acc);                                                    \
        mf_accumulate_##width(m, delta, mask, mask_block, acc);                                    \
        for (uint32_t r = 0; r < out; r++) {                                                       \
            check_equal("accumulate " #width, acc[r],                                              \
                        expected(s, r, wide, NULL) + expected(s, r, delta, NULL));                 \
        }                                                                                          \
        for (int held = 0; held < 2; held++) {                                                     \
            mf_linear_windows_##width(m, taps, POSITIONS, codes, seen, bias, acc);                 \
            if (held) {                                                                            \
                mf_accumulate_windows_##width(m, taps, POSITIONS, delta, seen_delta, acc);         \
            }                                                                                      \
            for (uint32_t i = 0; i < out * POSITIONS; i++) {                                       \
                const uint32_t r = i / POSITIONS;                                                  \
                const int32_t *at = taps + i % POSITIONS * m->inputs;                              \
                check_equal("windows " #width, acc[i],                                             \
                            bias[r] + expected(s, r, wide, at) +                                   \
                                (held ? expected(s, r, delta, at) : 0));                           \
            }                                                                                      \
        }                                                                                          \
        free(bias);                                                                                \
        free(acc);                                                                                 \
        free(seen);                                                                                \
        free(seen_delta);                                                                          \
    }

CHECK_WIDTH(i32, int32_t)
CHECK_WIDTH(i64, int64_t)

/* Twice the largest sum of absolute terms that inputs of so many bits allow. */
static int64_t bound(const sample *s, int x_bits) {
    int64_t most = 0;
    for (uint32_t r = 0; r < s->m.out; r++) {
        int64_t sum = 0;
        for (uint32_t j = 0; j < s->m.inputs; j++) {
            sum += llabs(s->dense[r][j]);
        }
        most = sum > most ? sum : most;
    }
    return (most << (x_bits + 1)) + 2000;
}

static void check_products(const sample *s, int x_bits) {
    const uint32_t n = s->m.inputs, mask_block = below(2) ? 1 : 1 + below(n);
    const uint32_t blocks = (n + mask_block - 1) / mask_block, share = below(5);
    const int half = 1 << (x_bits - 1), extreme = below(5) == 0;
    int16_t codes[MOST];
    int32_t delta[MOST], taps[POSITIONS * MOST];
    uint8_t mask[MOST];
    for (uint32_t k = 0; k < blocks; k++) {
        mask[k] = below(4) < share;
    }
    for (uint32_t j = 0; j < n; j++) {
        const int sign = below(2) ? 1 : -1;
        codes[j] = (int16_t)(extreme ? -half : (int)below(2u * (uint32_t)half) - half);
        delta[j] = extreme ? sign * (2 * half - 1) : sign * (int)below(2u * (uint32_t)half);
        delta[j] = mask[j / mask_block] ? delta[j] : 0;
    }
    for (uint32_t i = 0; i < POSITIONS * n; i++) {
        taps[i] = (int32_t)below(n + 1) - 1;
    }
    int16_t *own_codes = exactly(codes, n * sizeof *codes);
    int32_t *own_delta = exactly(delta, n * sizeof *delta);
    uint8_t *own_mask = exactly(mask, blocks);
    if (own_codes && own_delta && own_mask) {
        check_i64(s, own_codes, own_delta, own_mask, mask_block, taps);
        if (bound(s, x_bits) <= INT32_MAX) {
            check_i32(s, own_codes, own_delta, own_mask, mask_block, taps);
        }
    }
    free(own_codes);
    free(own_delta);
    free(own_mask);
}

/* Every number of the widest streams, from every start. */
static void test_bits(void) {
    for (unsigned bits = 0; bits <= MF_MAX_INDEX_BITS; bits++) {
        uint8_t *numbers = stream(40, bits);
        uint32_t wanted[40];
        for (uint32_t i = 0; i < 40; i++) {
            wanted[i] = below(1u << bits);
            put(numbers, i, bits, wanted[i]);
        }
        for (uint32_t start = 0; start < 40; start++) {
            mf_bits reader = mf_bits_at(numbers, start, bits);
            for (uint32_t i = start; i < 40; i++) {
                check_equal("bits", mf_bits_next(&reader), wanted[i]);
            }
        }
        free(numbers);
    }
}

int main(void) {
    static const int fewest[] = {2, 1, 2, 1, 1}, most[] = {16, 8, 5, 8, 8};
    static sample s;
    test_bits();
    for (int grid = MF_GRID_SYMMETRIC; grid <= MF_GRID_SIGNS; grid++) {
        for (int bits = fewest[grid]; bits <= most[grid]; bits++) {
            for (int i = 0; i < CASES * 6; i++) {
                const int layout = i % 6 < 4 ? i % 6 : i % 6 - 4, x_bits = 2 + (int)below(15);
                choose_sizes(&s.m, layout);
                s.m.by_columns = i % 6 >= 4; /* dense and circulant again */
                choose_tables(&s, grid, (unsigned)bits);
                choose_codes(&s);
                snprintf(described, sizeof described,
                         "grid %d, %d bits, layout %d, by_columns %d, %u x %u", grid, bits, layout,
                         s.m.by_columns, (unsigned)s.m.out, (unsigned)s.m.inputs);
                check_products(&s, x_bits);
                free(s.codes);
                free(s.multipliers);
                free(s.index);
                free(s.table);
            }
        }
    }
    printf("stored matrices: %ld checks, %ld failed\n", checks, failures);
    return failures ? 1 : 0;
}
