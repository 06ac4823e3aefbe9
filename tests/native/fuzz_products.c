/* Random numbers and products. */
#define _POSIX_C_SOURCE 200112L /* posix_memalign */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz_case.h"
#include "matrix_tiles.h"
#include "packed.h"

static uint64_t state;

void begin(uint64_t seed) { state = seed * UINT64_C(0x9E3779B97F4A7C15) + 1; }

/* A linear congruential generator: the same numbers everywhere. */
uint32_t below(uint32_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % n;
}

int32_t between(int32_t low, int32_t high) {
    return low + (int32_t)below((uint32_t)(high - low) + 1);
}

float random_float(void) { return (float)between(-1000, 1000) / 500.0f; }

void *allocate(size_t bytes) {
    void *memory = NULL;
    if (posix_memalign(&memory, 64, bytes ? bytes : 1)) {
        fputs("out of memory\n", stderr);
        exit(1);
    }
    memset(memory, 0, bytes);
    return memory;
}

static uint8_t *random_bytes(size_t n) {
    uint8_t *made = allocate(n);
    for (size_t i = 0; i < n; i++) {
        made[i] = (uint8_t)below(256);
    }
    return made;
}

uint32_t divisor_of(uint32_t n) {
    uint32_t d = 1 + below(n);
    while (n % d) {
        d--;
    }
    return d;
}

static size_t stream_bytes(size_t count, unsigned bits) { return (count * bits + 7) / 8; }

static int64_t largest_level(const mf_matrix *m) {
    switch (m->grid) {
    case MF_GRID_SYMMETRIC: return INT64_C(1) << (m->bits - 1);
    case MF_GRID_ODD: return (INT64_C(1) << m->bits) - 1;
    case MF_GRID_POWER: return INT64_C(1) << ((1 << (m->bits - 1)) - 2);
    case MF_GRID_SIGNS: return 128 * m->bits;
    default: return 128;
    }
}

static void random_sizes(mf_matrix *m) {
    m->block = m->block_rows = 1;
    m->rows = 1 + below(below(4) ? 24 : 90);
    m->row_codes = 1 + below(below(4) ? 40 : 150);
    m->out = m->rows;
    m->inputs = m->row_codes;
    if (m->layout == MF_LAYOUT_CIRCULANT) {
        m->block = UINT32_C(1) << below(6);
        m->row_codes = m->inputs = m->block * (1 + below(9));
        m->out = m->rows * m->block;
    } else if (m->layout == MF_LAYOUT_BLOCKS) {
        m->block = 1 + below(5);
        m->block_rows = divisor_of(m->rows);
        m->kept = 1 + below(6);
        m->row_codes = m->kept * m->block;
        m->inputs = m->block * (m->kept + below(9));
    } else if (m->layout == MF_LAYOUT_N_M) {
        m->kept = 1 + below(4);
        m->block = m->kept + below(5);
        m->row_codes = m->kept * (1 + below(9));
        m->inputs = m->row_codes / m->kept * m->block;
    } else {
        m->by_columns = (uint8_t)below(2);
    }
    if (m->layout == MF_LAYOUT_CIRCULANT) {
        m->by_columns = (uint8_t)below(2);
    }
}

static const uint8_t *random_index(const mf_matrix *m) {
    const uint32_t places = m->layout == MF_LAYOUT_N_M ? m->block : m->inputs / m->block;
    const size_t count = m->layout == MF_LAYOUT_N_M ? (size_t)m->rows * m->row_codes
                                                    : (size_t)m->rows / m->block_rows * m->kept;
    uint8_t *stream = allocate(stream_bytes(count, m->index_bits));
    uint32_t taken[64], have = 0; /* an artefact names no place twice */
    for (size_t i = 0, bit = 0; i < count; i++) {
        have = i % m->kept == 0 ? 0 : have;
        uint32_t place = below(places);
        for (uint32_t k = 0; k < have; k++) {
            if (taken[k] == place) {
                place = (place + 1) % places;
                k = UINT32_MAX; /* from the first again */
            }
        }
        taken[have++] = place;
        for (unsigned b = 0; b < m->index_bits; b++, bit++) {
            stream[bit / 8] |= (uint8_t)((place >> b & 1u) << (bit % 8));
        }
    }
    return stream;
}

static mf_matrix random_matrix(void) {
    static const uint8_t most[] = {MF_MAX_CODE_BITS, 8, 5, 8, 8}, least[] = {2, 1, 2, 1, 1};
    mf_matrix m;
    memset(&m, 0, sizeof m);
    m.grid = (uint8_t)below(5);
    m.layout = (uint8_t)below(4);
    m.bits = (uint8_t)between(least[m.grid], most[m.grid]);
    random_sizes(&m);
    const int tables = m.grid == MF_GRID_LEVELS || m.grid == MF_GRID_SIGNS;
    m.rows_per_table = tables ? divisor_of(m.rows) : m.rows;
    m.codes = random_bytes(stream_bytes((size_t)m.rows * m.row_codes, m.bits));
    if (tables) {
        const size_t entries = m.grid == MF_GRID_SIGNS ? m.bits : (size_t)1 << m.bits;
        m.table = (const int8_t *)random_bytes(m.rows / m.rows_per_table * entries);
    } else if (below(3) == 0) {
        m.groups = divisor_of(m.row_codes);
        m.multipliers = random_bytes(stream_bytes((size_t)m.rows * m.groups, MF_MULTIPLIER_BITS));
    }
    if (m.layout == MF_LAYOUT_BLOCKS || m.layout == MF_LAYOUT_N_M) {
        const uint32_t places = m.layout == MF_LAYOUT_N_M ? m.block : m.inputs / m.block;
        while (UINT32_C(1) << m.index_bits < places) {
            m.index_bits++;
        }
        m.index = random_index(&m);
    }
    return m;
}

static void random_taps(made_product *made) {
    mf_product *p = &made->product;
    p->positions = 1;
    made->entering = p->inputs;
    if (below(4)) {
        return;
    }
    p->positions = 1 + below(11);
    made->entering = 1 + below(60);
    made->taps = allocate((size_t)p->positions * p->inputs * sizeof *made->taps);
    for (size_t i = 0; i < (size_t)p->positions * p->inputs; i++) {
        made->taps[i] = (int32_t)below(made->entering + 1) - 1;
    }
    p->taps = made->taps;
}

made_product random_codes(void) {
    made_product made;
    memset(&made, 0, sizeof made);
    mf_product *p = &made.product;
    p->matrix = random_matrix();
    p->out = p->matrix.out;
    p->inputs = p->matrix.inputs;
    made.x_bits = between(2, below(2) ? 8 : 16);
    /* Sums that carry differences have a bound of their own: twice that of codes, and what was there. */
    const int64_t level = largest_level(&p->matrix) * (p->matrix.multipliers ? 63 : 1);
    made.wide = (level * p->inputs << (made.x_bits + 2)) + 1000 > INT32_MAX || below(8) == 0;
    if (below(2)) {
        made.bias = allocate(p->out * (made.wide ? sizeof(int64_t) : sizeof(int32_t)));
        for (uint32_t r = 0; r < p->out; r++) {
            const int32_t value = between(-1000, 1000);
            if (made.wide) {
                ((int64_t *)made.bias)[r] = value;
            } else {
                ((int32_t *)made.bias)[r] = value;
            }
        }
    }
    p->bias = made.bias;
    random_taps(&made);
    p->unit = divisor_of(p->inputs);
    return made;
}

made_product random_floats(void) {
    made_product made;
    memset(&made, 0, sizeof made);
    mf_product *p = &made.product;
    p->out = 1 + below(70);
    p->inputs = 1 + below(50);
    made.floats = allocate((size_t)p->out * p->inputs * sizeof(float));
    for (size_t i = 0; i < (size_t)p->out * p->inputs; i++) {
        ((float *)made.floats)[i] = random_float();
    }
    random_taps(&made);
    p->unit = 1;
    return made;
}

void pack(made_product *made) {
    mf_product *p = &made->product;
    free(made->packed);
    made->packed = NULL;
    const size_t bytes = made->floats ? mf_packed_f32_bytes(p->out, p->inputs)
                         : made->wide ? 0
                                      : mf_packed_bytes(&p->matrix, made->x_bits);
    if (bytes) {
        made->packed = allocate(bytes);
        if (made->floats) {
            mf_pack_f32(made->floats, p->out, p->inputs, made->packed);
        } else {
            mf_pack(&p->matrix, made->x_bits, made->packed);
        }
    }
    p->packed = made->packed;
}

void forget(made_product *made) {
    const mf_matrix *m = &made->product.matrix;
    const void *const held[] = {m->codes, m->table, m->multipliers, m->index};
    for (size_t i = 0; i < sizeof held / sizeof held[0]; i++) {
        free((void *)(uintptr_t)held[i]);
    }
    free(made->bias);
    free(made->packed);
    free(made->floats);
    free(made->taps);
}
