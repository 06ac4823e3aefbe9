/* Fast kernels of this CPU against the references, meant to run under AddressSanitizer and UBSan (make
 * native-test): buffers are allocated to the byte, numbers include all extremes. */
#define _POSIX_C_SOURCE 200112L /* posix_memalign */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "elementwise.h"
#include "fixed_point.h"
#include "packed.h"

static long checks, failures;

static void check_equal(const char *what, const void *found, const void *expected, size_t bytes) {
    checks++;
    if (memcmp(found, expected, bytes) && ++failures <= 20) {
        fprintf(stderr, "FAILED %s (%s)\n", what, mf_isa());
    }
}

static void *allocate(size_t bytes) {
    void *memory = NULL;
    if (posix_memalign(&memory, 64, bytes ? bytes : 1)) {
        fputs("out of memory\n", stderr);
        exit(1);
    }
    return memory;
}

static uint32_t next_random(void) {
    static uint64_t state = 42;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}

/* Ends, powers of two with their neighbours, and random bits. */
static int32_t extreme(void) {
    static const int32_t edges[] = {INT32_MIN, INT32_MIN + 1, INT32_MAX, INT32_MAX - 1, 0, 1, -1};
    const uint32_t kind = next_random() % 4;
    if (kind == 0) {
        return edges[next_random() % 7];
    }
    if (kind == 1) {
        const int32_t power = (int32_t)(INT64_C(1) << (next_random() % 31));
        return (next_random() % 2 ? power : -power) + (int32_t)(next_random() % 3) - 1;
    }
    return kind == 2 ? (int32_t)(next_random() << 1 | next_random() % 2)
                     : (int32_t)(next_random() % 200000) - 100000;
}

static int32_t *extremes(size_t n) {
    int32_t *v = allocate(n * sizeof *v);
    for (size_t i = 0; i < n; i++) {
        v[i] = extreme();
    }
    return v;
}

static int32_t mantissa(void) {
    const uint32_t kind = next_random() % 4;
    return kind == 0 ? 32767 : kind == 1 ? 0 : (int32_t)(next_random() % 32768);
}

static void test_scaling(const mf_elementwise *fast, size_t n) {
    int32_t *v = extremes(2 * n), *found = allocate(8 * n), *expected = allocate(8 * n);
    int32_t *mu = allocate(4 * n);
    int16_t *codes = allocate(2 * n), *reference = allocate(2 * n);
    for (int s = -16; s <= 62; s++) {
        const int bits = 2 + (int)(next_random() % 15);
        const int32_t m = mantissa();
        fast->quantize(v, n, m, s, bits, codes);
        mf_quantize(v, n, m, s, bits, reference);
        check_equal("quantize", codes, reference, 2 * n);
        for (size_t i = 0; i < n; i++) {
            mu[i] = mantissa();
        }
        for (size_t groups = 1; groups <= n; groups++) {
            if (n % groups == 0 && (groups <= 4 || groups == n)) {
                fast->rescale_i32(v, 2, n, mu, groups, s, found);
                mf_rescale_i32(v, 2, n, mu, groups, s, expected);
                check_equal("rescale", found, expected, 8 * n);
            }
        }
    }
    free(v);
    free(found);
    free(expected);
    free(mu);
    free(codes);
    free(reference);
}

static void test_arithmetic(const mf_elementwise *fast, size_t n) {
    int32_t *a = extremes(n), *b = extremes(n);
    int32_t *found = allocate(4 * n), *expected = allocate(4 * n);
    int32_t *table = allocate(MF_TANH_ENTRIES * sizeof *table);
    for (int i = 0; i < MF_TANH_ENTRIES; i++) {
        const double y = rint(32768.0 * tanh(i / 32.0));
        table[i] = y < 32767.0 ? (int32_t)y : 32767;
    }
    fast->add(a, b, n, found);
    mf_add(a, b, n, expected);
    check_equal("add", found, expected, 4 * n);
    fast->sub(a, b, n, found);
    mf_sub(a, b, n, expected);
    check_equal("sub", found, expected, 4 * n);
    fast->mul(a, b, n, found);
    mf_mul(a, b, n, expected);
    check_equal("mul", found, expected, 4 * n);
    fast->tanh(a, n, table, found);
    mf_tanh_array(a, n, table, expected);
    check_equal("tanh", found, expected, 4 * n);
    fast->sigmoid(a, n, table, found);
    mf_sigmoid_array(a, n, table, expected);
    check_equal("sigmoid", found, expected, 4 * n);
    free(a);
    free(b);
    free(found);
    free(expected);
    free(table);
}

static void test_piecewise(const mf_elementwise *fast, size_t n) {
    const size_t segments = 1 + next_random() % 20;
    int32_t *x = extremes(n), *found = allocate(4 * n), *expected = allocate(4 * n);
    int32_t *breaks = allocate(4 * segments), *values = allocate(4 * segments);
    int32_t *slopes = allocate(4 * segments);
    for (size_t i = 0; i < segments; i++) {
        breaks[i] = i ? breaks[i - 1] + 1 + (int32_t)(next_random() % 50000) : 0;
        values[i] = (int32_t)(next_random() % 65536);
        slopes[i] = i + 1 < segments ? (int32_t)(next_random() % 65537) : 0;
    }
    for (size_t i = 0; i < n && i < segments; i++) {
        x[i] = next_random() % 2 ? breaks[i] : -breaks[i];
    }
    const mf_piecewise table = {breaks, values, slopes, segments, next_random() % 2 ? 1 << 15 : 0};
    fast->piecewise(x, n, &table, found);
    mf_piecewise_array(x, n, &table, expected);
    check_equal("piecewise", found, expected, 4 * n);
    free(x);
    free(found);
    free(expected);
    free(breaks);
    free(values);
    free(slopes);
}

static int16_t *codes_of(size_t n, int bits) {
    int16_t *codes = allocate(2 * n);
    const int32_t end = INT32_C(1) << (bits - 1);
    const uint32_t few = next_random() % 3; /* of which none, few or half are at an end */
    for (size_t i = 0; i < n; i++) {
        const uint32_t kind = few ? next_random() % (few == 1 ? 8 : 1000) : next_random() % 4;
        if (few && kind > 1) {
            codes[i] = (int16_t)((int32_t)(next_random() % (uint32_t)end) - end / 2);
            continue;
        }
        codes[i] = (int16_t)(kind == 0   ? -end
                             : kind == 1 ? end - 1
                                         : (int32_t)(next_random() % (uint32_t)(2 * end)) - end);
    }
    return codes;
}

static void test_delta_encode(const mf_elementwise *fast, size_t n) {
    const int bits = 2 + (int)(next_random() % 15);
    const size_t block = next_random() % 2 ? 1 : 1 + next_random() % 9;
    const size_t blocks = (n + block - 1) / block;
    int16_t *x = codes_of(2 * n, bits), *old = codes_of(2 * n, bits);
    int32_t *theta = allocate(4 * blocks), *delta = allocate(8 * n), *delta_b = allocate(8 * n);
    int16_t *sent = allocate(4 * n), *sent_b = allocate(4 * n);
    uint8_t *mask = allocate(2 * blocks), *mask_b = allocate(2 * blocks);
    for (size_t i = 0; i < blocks; i++) {
        theta[i] = (int32_t)(next_random() % (next_random() % 2 ? 4 : 65537));
    }
    const int overshoot = (int)(next_random() % 256);
    fast->delta_encode(x, old, 2, n, block, theta, overshoot, bits, delta, mask, sent);
    mf_delta_encode(x, old, 2, n, block, theta, overshoot, bits, delta_b, mask_b, sent_b);
    check_equal("delta", delta, delta_b, 8 * n);
    check_equal("mask of delta", mask, mask_b, 2 * blocks);
    check_equal("sent", sent, sent_b, 4 * n);
    free(x);
    free(old);
    free(theta);
    free(delta);
    free(delta_b);
    free(sent);
    free(sent_b);
    free(mask);
    free(mask_b);
}

static void test_floats(const mf_elementwise *fast, size_t n) {
    float *x = allocate(4 * n), *y = allocate(4 * n);
    for (size_t i = 0; i < n; i++) {
        const float size = ldexpf(1.0f, (int)(next_random() % 40) - 32);
        x[i] = size * ((float)(next_random() % 2001) / 1000.0f - 1.0f);
    }
    fast->sigmoid_f32(x, n, y);
    for (size_t i = 0; i < n; i++, checks++) {
        failures += !(fabs(y[i] - 1.0 / (1.0 + exp(-(double)x[i]))) <= 4e-7);
    }
    fast->tanh_f32(x, n, y);
    for (size_t i = 0; i < n; i++, checks++) {
        failures += !(fabs(y[i] - tanh((double)x[i])) <= 4e-7);
    }
    free(x);
    free(y);
}

static void test_product(uint32_t out, uint32_t inputs, unsigned bits, uint32_t block, int delta) {
    mf_matrix m;
    memset(&m, 0, sizeof m);
    m.out = out * block;
    m.inputs = inputs * block;
    m.rows = m.rows_per_table = out;
    m.row_codes = m.inputs;
    m.block = block;
    m.block_rows = 1;
    m.bits = (uint8_t)bits;
    m.grid = MF_GRID_ODD;
    m.layout = block == 1 ? MF_LAYOUT_DENSE : MF_LAYOUT_CIRCULANT;
    m.by_columns = (uint8_t)delta;
    if (bits > 6) {
        m.grid = MF_GRID_SYMMETRIC;
    }
    const size_t bytes = ((size_t)m.rows * m.row_codes * bits + 7) / 8;
    uint8_t *stream = allocate(bytes);
    for (size_t i = 0; i < bytes; i++) {
        stream[i] = (uint8_t)next_random();
    }
    m.codes = stream;
    const size_t packed_bytes = mf_packed_bytes(&m, 8);
    if (packed_bytes) {
        const size_t steps = 1 + next_random() % 20;
        void *packed = allocate(packed_bytes);
        mf_pack(&m, 8, packed);
        void *scratch = allocate(mf_packed_scratch(packed));
        int16_t *x = codes_of(steps * m.inputs, 8);
        int32_t *acc = allocate(steps * m.out * 4), *expected = allocate(steps * m.out * 4);
        for (size_t t = 0; t < steps; t++) {
            mf_linear_i32(&m, x + t * m.inputs, NULL, expected + t * m.out);
        }
        mf_packed_linear(packed, x, m.inputs, steps, NULL, acc, m.out, scratch);
        check_equal("product", acc, expected, steps * m.out * 4);
        int32_t *change = allocate(4 * (size_t)m.inputs);
        uint8_t *mask = allocate(m.inputs);
        const uint32_t share = next_random() % 101, most = next_random() % 256;
        for (uint32_t i = 0; i < m.inputs; i++) {
            mask[i] = next_random() % 100 < share;
            change[i] = mask[i] ? (int32_t)(next_random() % (2 * most + 1)) - (int32_t)most : 0;
        }
        mf_accumulate_i32(&m, change, mask, 1, expected);
        mf_packed_accumulate(packed, change, acc, scratch);
        check_equal("accumulation", acc, expected, m.out * (size_t)4);
        free(packed);
        free(scratch);
        free(x);
        free(acc);
        free(expected);
        free(change);
        free(mask);
    }
    free(stream);
}

int main(void) {
    const mf_elementwise *fast = mf_elementwise_table();
    for (size_t n = 1; n <= 40; n++) {
        test_scaling(fast, n);
        for (int i = 0; i < 20; i++) {
            test_arithmetic(fast, n);
            test_piecewise(fast, n);
            test_delta_encode(fast, n);
            test_floats(fast, n);
        }
    }
    for (int i = 0; i < 400; i++) {
        const unsigned bits = 1 + next_random() % 8;
        const uint32_t out = 1 + next_random() % 70, inputs = 1 + next_random() % 90;
        test_product(out, inputs, bits, 1, i % 2);
        test_product(1 + out / 8, 1 + inputs / 8, bits, 4u << next_random() % 3, i % 2);
    }
    for (int i = 0; i < 60; i++) {
        test_product(1 + next_random() % 140, 1 + next_random() % 1200, 8, 1, i % 2);
    }
    for (int i = 0; i < 60; i++) { /* more active columns than are added at once */
        test_product(1 + next_random() % 300, 100 + next_random() % 500, i % 3 ? 8 : 4, 1, 1);
    }
    printf("%s: %ld checks, %ld failures\n", mf_isa(), checks, failures);
    if (strcmp(mf_isa(), "portable") == 0) {
        puts("SKIPPED fast kernels: this CPU or build has none");
    }
    return failures != 0;
}
