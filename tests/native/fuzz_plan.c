/* Random calls and products through the executor of plans, under AddressSanitizer and UBSan (make native-test):
 * what the loader lets through stays in its memory, and every instruction set leaves the same bits there.
 *   fuzz_plan [cases] [first seed] */
#define _POSIX_C_SOURCE 200112L /* posix_memalign */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fixed_point.h"
#include "matrix_tiles.h"
#include "packed.h"
#include "plan.h"

enum { MOST_CALLS = 6, MOST_ROWS = 5, MOST_BYTES = 1 << 22 };

static uint64_t state;

/* A linear congruential generator: the same numbers everywhere. */
static uint32_t below(uint32_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % n;
}

static int32_t between(int32_t low, int32_t high) {
    return low + (int32_t)below((uint32_t)(high - low) + 1);
}

static void *allocate(size_t bytes) {
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

static uint32_t divisor_of(uint32_t n) {
    uint32_t d = 1 + below(n);
    while (n % d) {
        d--;
    }
    return d;
}

/* --- products ------------------------------------------------------------------------------------ */
typedef struct {
    mf_product product;
    void *bias, *packed, *floats;
    int32_t *taps;
    int x_bits, wide; /* codes of the input; int64 sums */
    uint32_t entering;
} made_product;

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

static made_product random_codes(void) {
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

static float random_float(void) { return (float)between(-1000, 1000) / 500.0f; }

static made_product random_floats(void) {
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

/* Packs for the instruction set that is chosen now. */
static void pack(made_product *made) {
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

static void forget(made_product *made) {
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

/* --- calls --------------------------------------------------------------------------------------- */
typedef struct {
    mf_call calls[MOST_CALLS];
    made_product products[MOST_CALLS];
    void *constants[MOST_CALLS][3];
    mf_counts counts[MOST_CALLS];
    uint8_t *memory; /* as it is before the run; `used` bytes */
    size_t used, rows;
} fuzz_case;

/* Space for `size` elements of `item` bytes in every row, or one for all rows. */
static mf_place reserve(fuzz_case *f, mf_call *c, size_t item, size_t size, int shared) {
    f->used = (f->used + item - 1) / item * item + item * below(3);
    const size_t gap = below(2) ? 0 : item * below(4);
    mf_place place = {f->used, shared ? 0 : size * item + gap};
    c->joined = c->joined && place.stride == size * item;
    f->used += place.stride ? place.stride * (f->rows - 1) + size * item : size * item;
    if (f->used > MOST_BYTES) {
        fputs("a case is too large\n", stderr);
        exit(1);
    }
    return place;
}

#define EACH(f, place, type, size, value)                                                          \
    for (size_t row_ = 0; row_ < (f)->rows; row_++) {                                              \
        type *at_ = (type *)(void *)((f)->memory + (place).offset + row_ * (place).stride);        \
        for (size_t i_ = 0; i_ < (size); i_++) {                                                   \
            at_[i_] = (type)(value);                                                               \
        }                                                                                          \
    }

static int32_t any_fx(void) {
    return below(4) ? between(-(1 << 20), 1 << 20) : (int32_t)(below(1u << 31) << 1 | below(2));
}

static int32_t *random_constants(fuzz_case *f, int number, int which, size_t n, int32_t low, int32_t high) {
    int32_t *made = allocate(n * sizeof *made);
    for (size_t i = 0; i < n; i++) {
        made[i] = between(low, high);
    }
    f->constants[number][which] = made;
    return made;
}

static void random_table(fuzz_case *f, int number, mf_piecewise *t) {
    t->segments = 1 + below(20);
    t->centre = between(0, 1 << 16);
    int32_t *breaks = random_constants(f, number, 0, t->segments, 1, 65536);
    int32_t *slopes = random_constants(f, number, 2, t->segments, 0, 65536);
    breaks[0] = 0;
    for (size_t i = 1; i < t->segments; i++) {
        breaks[i] += breaks[i - 1];
    }
    slopes[t->segments - 1] = 0;
    t->breaks = breaks;
    t->slopes = slopes;
    t->values = random_constants(f, number, 1, t->segments, 0, 1 << 16);
}

/* Elementwise calls of one or two operands of 32 bits; results may lie where the first operand does. */
static void elementwise(fuzz_case *f, mf_call *c, int operands, int floats) {
    for (int k = 0; k < operands; k++) {
        c->in[k] = reserve(f, c, 4, c->size, below(4) == 0);
        if (floats) {
            EACH(f, c->in[k], float, c->size, random_float());
        } else {
            EACH(f, c->in[k], int32_t, c->size, any_fx());
        }
    }
    const int shared = c->in[0].stride == 0;
    c->out[0] = !shared && below(3) == 0 ? c->in[0] : reserve(f, c, 4, c->size, 0);
}

static void rescale(fuzz_case *f, mf_call *c, int number) {
    const size_t item = c->kernel == MF_RESCALE_I32 ? 4 : 8;
    c->constant_count = divisor_of(c->size);
    c->constants = random_constants(f, number, 0, c->constant_count, 0, 32767);
    c->shift = between(0, 50);
    c->in[0] = reserve(f, c, item, c->size, 0);
    if (item == 4) {
        EACH(f, c->in[0], int32_t, c->size, any_fx());
    } else {
        EACH(f, c->in[0], int64_t, c->size, (int64_t)any_fx() * (1 << below(14)));
    }
    c->out[0] = reserve(f, c, 4, c->size, 0);
}

static void delta_encode(fuzz_case *f, mf_call *c, int number) {
    c->bits = between(2, 16);
    c->block = between(1, below(2) ? 1 : 9);
    c->overshoot = between(0, 255);
    c->constant_count = (c->size + (uint32_t)c->block - 1) / (uint32_t)c->block;
    c->constants = random_constants(f, number, 0, c->constant_count, 0, 1 << c->bits);
    const int32_t high = (1 << (c->bits - 1)) - 1;
    for (int k = 0; k < 2; k++) {
        c->in[k] = reserve(f, c, 2, c->size, 0);
        EACH(f, c->in[k], int16_t, c->size, between(-high - 1, high));
    }
    c->out[0] = reserve(f, c, 4, c->size, 0);
    c->out[1] = reserve(f, c, 1, c->constant_count, 0);
    c->out[2] = below(2) ? c->in[1] : reserve(f, c, 2, c->size, 0);
}

static void linear(fuzz_case *f, mf_call *c, int number) {
    made_product *made = &f->products[number];
    *made = c->kernel == MF_LINEAR_F32 ? random_floats() : random_codes();
    if (c->kernel != MF_LINEAR_F32) {
        c->kernel = made->wide ? MF_LINEAR_I64 : MF_LINEAR_I32;
    }
    c->product = &made->product;
    c->skip_zeros = (int)below(2);
    c->in_size = made->entering;
    c->size = made->product.out * made->product.positions;
    const uint32_t sparse = below(2) ? 1 : 12;
    if (c->kernel == MF_LINEAR_F32) {
        c->in[0] = reserve(f, c, 4, c->in_size, below(4) == 0);
        EACH(f, c->in[0], float, c->in_size, below(sparse) ? 0.0f : random_float());
        c->out[0] = reserve(f, c, 4, c->size, 0);
        return;
    }
    const int32_t high = (1 << (made->x_bits - 1)) - 1;
    c->in[0] = reserve(f, c, 2, c->in_size, below(4) == 0);
    EACH(f, c->in[0], int16_t, c->in_size, below(sparse) ? 0 : between(-high - 1, high));
    c->out[0] = reserve(f, c, made->wide ? 8 : 4, c->size, 0);
}

static void accumulate(fuzz_case *f, mf_call *c, int number) {
    made_product *made = &f->products[number];
    *made = random_codes();
    c->kernel = made->wide ? MF_ACCUMULATE_I64 : MF_ACCUMULATE_I32;
    c->product = &made->product;
    c->block = between(1, 7);
    c->in_size = made->entering;
    c->size = made->product.out * made->product.positions;
    const uint32_t blocks = (c->in_size + (uint32_t)c->block - 1) / (uint32_t)c->block;
    const int32_t most = (1 << made->x_bits) - 1;
    c->in[0] = reserve(f, c, 4, c->in_size, 0);
    c->in[1] = reserve(f, c, 1, blocks, 0);
    EACH(f, c->in[1], uint8_t, blocks, below(2));
    for (size_t row = 0; row < f->rows; row++) {
        int32_t *delta = (int32_t *)(void *)(f->memory + c->in[0].offset + row * c->in[0].stride);
        const uint8_t *mask = f->memory + c->in[1].offset + row * c->in[1].stride;
        for (uint32_t i = 0; i < c->in_size; i++) {
            delta[i] = mask[i / (uint32_t)c->block] ? between(-most, most) : 0;
        }
    }
    c->in[2] = c->out[0] = reserve(f, c, made->wide ? 8 : 4, c->size, 0);
    if (made->wide) {
        EACH(f, c->out[0], int64_t, c->size, between(-1000, 1000));
    } else {
        EACH(f, c->out[0], int32_t, c->size, between(-1000, 1000));
    }
}

static void one_hot(fuzz_case *f, mf_call *c) {
    c->in_size = 1;
    c->in[0] = reserve(f, c, 4, 1, 0);
    if (c->kernel == MF_ONE_HOT) {
        EACH(f, c->in[0], int32_t, 1, any_fx());
    } else {
        EACH(f, c->in[0], float, 1, between(-100, 100));
    }
    c->out[0] = reserve(f, c, 4, c->size, 0);
}

static void random_call(fuzz_case *f, int number) {
    mf_call *c = &f->calls[number];
    c->kernel = (mf_kernel)below(MF_KERNELS);
    c->site = (uint32_t)number;
    c->size = c->in_size = 1 + below(70);
    c->joined = 1;
    c->block = 1;
    switch (c->kernel) {
    case MF_QUANTIZE:
        c->mu = between(0, 32767);
        c->shift = between(-16, 62);
        c->bits = between(2, 16);
        c->in[0] = reserve(f, c, 4, c->size, 0);
        EACH(f, c->in[0], int32_t, c->size, any_fx());
        c->out[0] = reserve(f, c, 2, c->size, 0);
        break;
    case MF_LINEAR_I32:
    case MF_LINEAR_I64:
    case MF_LINEAR_F32: linear(f, c, number); break;
    case MF_DELTA_ENCODE: delta_encode(f, c, number); break;
    case MF_ACCUMULATE_I32:
    case MF_ACCUMULATE_I64: accumulate(f, c, number); break;
    case MF_RESCALE_I32:
    case MF_RESCALE_I64: rescale(f, c, number); break;
    case MF_SIGMOID:
    case MF_TANH:
        c->constant_count = MF_TANH_ENTRIES;
        c->constants = random_constants(f, number, 0, MF_TANH_ENTRIES, 0, 0);
        for (int i = 0; i < MF_TANH_ENTRIES; i++) {
            ((int32_t *)f->constants[number][0])[i] = (int32_t)lrint(32767.0 * tanh(i / 32.0));
        }
        elementwise(f, c, 1, 0);
        break;
    case MF_PIECEWISE:
        random_table(f, number, &c->table);
        elementwise(f, c, 1, 0);
        break;
    case MF_RELU: elementwise(f, c, 1, 0); break;
    case MF_ADD:
    case MF_SUB:
    case MF_MUL: elementwise(f, c, 2, 0); break;
    case MF_ADD_F32:
    case MF_SUB_F32:
    case MF_MUL_F32: elementwise(f, c, 2, 1); break;
    case MF_SIGMOID_F32:
    case MF_TANH_F32:
    case MF_RELU_F32: elementwise(f, c, 1, 1); break;
    case MF_ONE_HOT:
    case MF_ONE_HOT_F32: one_hot(f, c); break;
    case MF_COPY:
    case MF_KERNELS: /* also MF_LSTM */
    case MF_GRU:
        c->kernel = MF_COPY;
        c->item_bytes = UINT32_C(1) << below(4);
        c->in[0] = reserve(f, c, c->item_bytes, c->size, 0);
        EACH(f, c->in[0], uint8_t, c->size * c->item_bytes, below(256));
        c->out[0] = reserve(f, c, c->item_bytes, c->size, 0);
        break;
    }
}

/* The memory after a run of the calls, in a piece of its own that ends where the plan's does. */
static uint8_t *run_calls(fuzz_case *f, size_t count, size_t ahead) {
    size_t scratch = 0;
    uint8_t *memory = allocate(f->used);
    memcpy(memory, f->memory, f->used);
    for (size_t k = 0; k < count; k++) {
        if (f->calls[k].product) {
            pack(&f->products[k]);
            const size_t bytes = mf_product_scratch(&f->products[k].product);
            scratch = bytes > scratch ? bytes : scratch;
        }
    }
    const mf_stage stage = {f->calls, ahead, count - ahead, NULL, 0, 0, mf_elementwise_table()};
    mf_run run;
    memset(&run, 0, sizeof run);
    run.memory = memory;
    run.scratch = allocate(scratch);
    run.counts = below(2) ? f->counts : NULL;
    mf_run_stage(&stage, &run, 0, f->rows);
    free(run.scratch);
    return memory;
}

static int differs(const mf_call *c, const uint8_t *a, const uint8_t *b, size_t rows) {
    const int floats = c->kernel == MF_LINEAR_F32 || (c->kernel >= MF_ADD_F32 && c->kernel <= MF_TANH_F32);
    const size_t item = c->kernel == MF_LINEAR_I64 || c->kernel == MF_ACCUMULATE_I64 ? 8
                        : c->kernel == MF_COPY                                      ? c->item_bytes
                        : c->kernel == MF_QUANTIZE                                  ? 2
                                                                                    : 4;
    for (size_t row = 0; row < rows; row++) {
        const size_t at = c->out[0].offset + row * c->out[0].stride;
        if (!floats) {
            if (memcmp(a + at, b + at, c->size * item)) {
                return 1;
            }
            continue;
        }
        const float *x = (const float *)(const void *)(a + at), *y = (const float *)(const void *)(b + at);
        for (uint32_t i = 0; i < c->size; i++) {
            if (!(fabsf(x[i] - y[i]) <= 1e-5f * fmaxf(200.0f, fabsf(y[i])))) {
                return 1;
            }
        }
    }
    return 0;
}

static int run_case(uint64_t seed) {
    static uint8_t space[MOST_BYTES];
    static fuzz_case f;
    memset(&f, 0, sizeof f);
    state = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    f.memory = space;
    f.rows = 1 + below(MOST_ROWS);
    const size_t count = 1 + below(MOST_CALLS), ahead = below((uint32_t)count + 1);
    for (size_t k = 0; k < count; k++) {
        random_call(&f, (int)k);
    }
    mf_limit_isa("portable");
    uint8_t *wanted = run_calls(&f, count, ahead);
    mf_limit_isa(NULL);
    uint8_t *found = run_calls(&f, count, ahead);
    int failures = 0;
    for (size_t k = 0; k < count; k++) {
        if (differs(&f.calls[k], found, wanted, f.rows)) {
            const mf_product *p = f.calls[k].product;
            fprintf(stderr, "FAILED seed %llu, call %zu of kernel %d: %s differs from portable\n",
                    (unsigned long long)seed, k, (int)f.calls[k].kernel, mf_isa());
            if (p) {
                fprintf(stderr, "    layout %d grid %d bits %d x_bits %d taps %d by_columns %d\n",
                        p->matrix.layout, p->matrix.grid, p->matrix.bits, f.products[k].x_bits,
                        p->taps != NULL, p->matrix.by_columns);
            }
            failures++;
        }
        if (f.calls[k].product) {
            forget(&f.products[k]);
        }
        for (int i = 0; i < 3; i++) {
            free(f.constants[k][i]);
        }
    }
    memset(space, 0, f.used);
    free(wanted);
    free(found);
    return failures;
}

int main(int argc, char **argv) {
    const unsigned long cases = argc > 1 ? strtoul(argv[1], NULL, 10) : 2000;
    const unsigned long first = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
    int failures = 0;
    for (unsigned long i = 0; i < cases && failures < 20; i++) {
        failures += run_case(first + i);
    }
    printf("fuzz_plan: %lu random plans on %s, %d failures\n", cases, mf_isa(), failures);
    return failures != 0;
}
