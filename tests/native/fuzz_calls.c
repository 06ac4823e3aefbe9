/* Random calls of all kernels that plans name. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "fixed_point.h"
#include "fuzz_case.h"

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

/* Terms of floats, dense or in blocks, with everything that they point to in one piece. */
static void refine(fuzz_case *f, mf_call *c, int number) {
    const uint32_t widths[] = {1, 3, 8}, width = widths[below(3)], blocks = 1 + below(12);
    const uint32_t groups = 1 + below(4), rows = groups * (1 + below(9)), terms = 1 + below(5);
    const uint32_t dense = below(3) == 0, kept = dense ? blocks : 1 + below(blocks), n = terms * groups;
    const size_t floats = (size_t)terms * rows + (size_t)n * kept * width + n;
    mf_refinement *made = allocate(sizeof *made + floats * sizeof(float) + (size_t)n * kept * sizeof(uint32_t));
    float *at = (float *)(void *)(made + 1);
    uint32_t *index = (uint32_t *)(void *)(at + floats);
    for (size_t i = 0; i < floats; i++) {
        at[i] = random_float() / 16;
    }
    for (size_t i = 0; i < (size_t)n * kept; i++) {
        index[i] = below(blocks);
    }
    const mf_terms t = {rows, blocks * width, terms, groups, kept, width, at, at + (size_t)terms * rows,
                        dense ? NULL : index, below(2) ? at + floats - n : NULL};
    made->terms = t;
    made->count = terms;
    made->share = MF_WHOLE;
    made->inner_site = (uint32_t)number;
    f->constants[number][0] = made;
    f->products[number].product.out = rows;
    f->products[number].wide = 1; /* nothing is packed */
    c->kernel = MF_REFINE_F32;
    c->refinement = made;
    c->product = &f->products[number].product;
    c->in_size = t.inputs;
    c->size = rows;
    c->in[0] = reserve(f, c, 4, c->in_size, below(4) == 0);
    EACH(f, c->in[0], float, c->in_size, random_float());
    c->out[0] = reserve(f, c, 4, c->size, 0);
}

void random_call(fuzz_case *f, int number) {
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
    case MF_REFINE_I32:
    case MF_REFINE_I64:
    case MF_REFINE_F32: refine(f, c, number); break;
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
