/* Brute-force checks of the C kernels, meant to run under AddressSanitizer and UBSan (make
 * native-test): buffers are allocated to the byte, and the expected values come from division,
 * 64-bit comparison and libm instead of shifts and bit tricks. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "elementwise.h"
#include "fixed_point.h"
#include "piecewise.h"
#include "plan.h"
#include "read_loop.h"

static long checks, failures;

static void check_equal(const char *what, long long found, long long expected) {
    checks++;
    if (found != expected && ++failures <= 20) {
        fprintf(stderr, "FAILED %s: found %lld, expected %lld\n", what, found, expected);
    }
}

static const int32_t edges[] = {INT32_MIN, INT32_MIN + 1, -1073741825, -65537, -65536, -32769,
                                -32768, -2049, -3, -2, -1, 0, 1, 2, 3, 2047, 2048, 32767, 32768,
                                65535, 65536, 524287, 524288, 1073741824, INT32_MAX - 1, INT32_MAX};
enum { EDGES = sizeof edges / sizeof edges[0] };

static void *allocate(size_t bytes) {
    void *memory = malloc(bytes ? bytes : 1);
    if (!memory) {
        fputs("out of memory\n", stderr);
        exit(1);
    }
    return memory;
}

/* A linear congruential generator: the same numbers everywhere. */
static uint32_t next_random(void) {
    static uint64_t state = 42;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}

static int64_t floor_divide(int64_t a, int64_t b) { return a / b - (a % b < 0); }

static int64_t expected_rsh(int64_t a, int s) {
    const int64_t power = (int64_t)1 << (s < 0 ? -s : s);
    return s < 1 ? a * power : floor_divide(a + power / 2, power);
}

static int64_t expected_clamp(int64_t a, int bits) {
    const int64_t high = ((int64_t)1 << (bits - 1)) - 1;
    if (a > high) {
        return high;
    }
    return a < -high - 1 ? -high - 1 : a;
}

static void test_rsh(void) {
    for (int s = -8; s <= 20; s++) {
        for (int64_t a = -3000; a <= 3000; a++) {
            check_equal("rsh", mf_rsh(a, mf_make_shift(s)), expected_rsh(a, s));
        }
    }
    for (int s = -24; s <= 62; s++) {
        for (int i = 0; i < EDGES; i++) {
            check_equal("rsh of an edge", mf_rsh(edges[i], mf_make_shift(s)),
                        expected_rsh(edges[i], s));
        }
    }
}

static void test_quantize(void) {
    int16_t *codes = allocate(EDGES * sizeof *codes);
    for (int bits = 2; bits <= 16; bits++) {
        for (int s = -8; s <= 40; s++) {
            const int32_t mu = (int32_t)(next_random() % 32767) + 1;
            mf_quantize(edges, EDGES, mu, s, bits, codes);
            for (int i = 0; i < EDGES; i++) {
                check_equal("quantize", codes[i],
                            expected_clamp(expected_rsh((int64_t)edges[i] * mu, s), bits));
            }
        }
    }
    free(codes);
}

static void test_rescale(void) {
    enum { ROWS = 3, COLUMNS = EDGES, N = ROWS * COLUMNS };
    int32_t *i32 = allocate(N * sizeof *i32), *fx = allocate(N * sizeof *fx);
    int64_t *i64 = allocate(N * sizeof *i64);
    float *f32 = allocate(N * sizeof *f32);
    double *f64 = allocate(N * sizeof *f64);
    int32_t *mu = allocate(COLUMNS * sizeof *mu);
    for (int i = 0; i < N; i++) {
        i32[i] = edges[i % EDGES];
        i64[i] = (int64_t)i32[i] * (i % 2 ? 1 : 4096);
        f64[i] = (double)i64[i];
        f32[i] = (float)(i32[i] / 256);
    }
    for (int s = 0; s <= 62; s++) {
        for (size_t count = 1; count <= COLUMNS; count += COLUMNS - 1) {
            for (size_t c = 0; c < COLUMNS; c++) {
                mu[c] = (int32_t)(next_random() % 32767) + 1;
            }
#define CHECK_RESCALE(kernel, acc)                                                                 \
    kernel(acc, ROWS, COLUMNS, mu, count, s, fx);                                                  \
    for (size_t i = 0; i < N; i++) {                                                               \
        check_equal(#kernel, fx[i],                                                                \
                    expected_clamp(expected_rsh((int64_t)acc[i] * mu[i % count], s), 32));         \
    }
            CHECK_RESCALE(mf_rescale_i32, i32)
            CHECK_RESCALE(mf_rescale_i64, i64)
            CHECK_RESCALE(mf_rescale_f32, f32)
            CHECK_RESCALE(mf_rescale_f64, f64)
        }
    }
    free(i32);
    free(fx);
    free(i64);
    free(f32);
    free(f64);
    free(mu);
}

static void test_binary(void) {
    int32_t *out = allocate(EDGES * sizeof *out), *b = allocate(EDGES * sizeof *b);
    for (int shift = 0; shift < EDGES; shift++) {
        for (int i = 0; i < EDGES; i++) {
            b[i] = edges[(i + shift) % EDGES];
        }
        mf_add(edges, b, EDGES, out);
        for (int i = 0; i < EDGES; i++) {
            check_equal("add", out[i], expected_clamp((int64_t)edges[i] + b[i], 32));
        }
        mf_sub(edges, b, EDGES, out);
        for (int i = 0; i < EDGES; i++) {
            check_equal("sub", out[i], expected_clamp((int64_t)edges[i] - b[i], 32));
        }
        mf_mul(edges, b, EDGES, out);
        for (int i = 0; i < EDGES; i++) {
            check_equal("mul", out[i],
                        expected_clamp(expected_rsh((int64_t)edges[i] * b[i], 16), 32));
        }
    }
    free(out);
    free(b);
}

static int32_t *make_table(void) {
    int32_t *table = allocate(MF_TANH_ENTRIES * sizeof *table);
    for (int i = 0; i < MF_TANH_ENTRIES; i++) {
        const double value = floor(32768.0 * tanh(i / 32.0) + 0.5);
        table[i] = value > 32767 ? 32767 : (int32_t)value;
    }
    return table;
}

static int32_t expected_tanh(int64_t x, const int32_t *table) {
    const int64_t size = x < 0 ? -x : x, a = size > 524287 ? 524287 : size, i = a / 2048;
    const int64_t y = 2 * table[i] + expected_rsh((table[i + 1] - table[i]) * (a % 2048), 10);
    return (int32_t)(x < 0 ? -y : y);
}

/* Every fx from -9 to 9. Between knots 1/32 apart linear interpolation errs by at most
 * max|tanh''| / 8 / 32^2 = 0.77 / 8192 = 6.2 units of 2^-16; rounding the table and the result adds
 * at most 2 units (2.1 where the last entry is cut to 2^15 - 1, where the curve is flat). */
static void test_nonlinearities(void) {
    enum { LIMIT = 9 << 16, N = 2 * LIMIT + 1 };
    int32_t *table = make_table();
    int32_t *x = allocate(N * sizeof *x), *y = allocate(N * sizeof *y), *z = allocate(N * sizeof *z);
    for (int i = 0; i < N; i++) {
        x[i] = i - LIMIT;
    }
    mf_tanh_array(x, N, table, y);
    mf_sigmoid_array(x, N, table, z);
    for (int i = 0; i < N; i++) {
        const double real = x[i] / 65536.0;
        check_equal("tanh", y[i], expected_tanh(x[i], table));
        check_equal("sigmoid", z[i],
                    32768 + expected_rsh(expected_tanh(expected_rsh(x[i], 1), table), 1));
        check_equal("tanh is near", fabs(y[i] / 65536.0 - tanh(real)) <= 8.3 / 65536, 1);
        check_equal("sigmoid is near",
                    fabs(z[i] / 65536.0 - 1 / (1 + exp(-real))) <= 5.2 / 65536, 1);
        check_equal("tanh is odd", y[i], -y[N - 1 - i]);
        check_equal("tanh ascends", i == 0 || y[i] >= y[i - 1], 1);
    }
    for (int i = 0; i <= 255; i++) {
        check_equal("tanh at a knot", mf_tanh(i * 2048, table), 2 * table[i]);
    }
    for (int i = 0; i < EDGES; i++) { /* Far out: the value at 8, with its sign. */
        if (edges[i] > 1000000 || edges[i] < -1000000) {
            check_equal("tanh far out", mf_tanh(edges[i], table),
                        edges[i] < 0 ? y[LIMIT - 524287] : y[LIMIT + 524287]);
        }
    }
    mf_tanh_array(x, N, table, x); /* in place */
    check_equal("tanh in place", memcmp(x, y, N * sizeof *x), 0);
    free(table);
    free(x);
    free(y);
    free(z);
}

static int expected_send(const int16_t *x, const int16_t *x_hat, size_t from, size_t to,
                         int32_t theta) {
    int any_change = 0, any_large = 0;
    for (size_t i = from; i < to; i++) {
        const long change = labs((long)x[i] - x_hat[i]);
        any_change |= change != 0;
        any_large |= change >= theta;
    }
    return any_change && any_large;
}

static long expected_sent(long x, long x_hat, int32_t theta, int overshoot, int bits) {
    const long change = labs(x - x_hat), counts = change < theta ? change : theta;
    const long beyond = counts * overshoot / 256; /* of a positive number: rounds down */
    return (long)expected_clamp(x > x_hat ? x + beyond : x - beyond, bits);
}

/* Codes of `bits` bits, the first block at the threshold theta, every next one above it by theta / 2. */
static void check_delta(size_t rows, size_t columns, size_t block, int32_t theta, int overshoot,
                        int bits) {
    const size_t n = rows * columns, blocks = (columns + block - 1) / block;
    int16_t *x = allocate(n * sizeof *x), *x_hat = allocate(n * sizeof *x_hat);
    int16_t *sent = allocate(n * sizeof *sent);
    int32_t *delta = allocate(n * sizeof *delta), *thetas = allocate(blocks * sizeof *thetas);
    uint8_t *mask = allocate(rows * blocks);
    for (size_t i = 0; i < n; i++) {
        x[i] = (int16_t)(((int32_t)(next_random() & 0xffff) - 32768) >> (16 - bits));
        x_hat[i] = (int16_t)(((int32_t)(next_random() & 0xffff) - 32768) >> (16 - bits));
    }
    for (size_t k = 0; k < blocks; k++) {
        thetas[k] = theta + (int32_t)k * (theta / 2);
    }
    mf_delta_encode(x, x_hat, rows, columns, block, thetas, overshoot, bits, delta, mask, sent);
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < columns; c++) {
            const size_t i = r * columns + c, k = c / block, from = r * columns + k * block;
            const size_t end = (r + 1) * columns, to = from + block < end ? from + block : end;
            const int send = expected_send(x, x_hat, from, to, thetas[k]);
            const long wanted =
                send ? expected_sent(x[i], x_hat[i], thetas[k], overshoot, bits) : x_hat[i];
            check_equal("delta mask", mask[r * blocks + k], send);
            check_equal("delta sent", sent[i], wanted);
            check_equal("delta", delta[i], wanted - x_hat[i]);
        }
    }
    mf_delta_encode(x, x_hat, rows, columns, block, thetas, overshoot, bits, delta, mask,
                    x_hat); /* in place */
    check_equal("delta in place", memcmp(x_hat, sent, n * sizeof *sent), 0);
    free(x);
    free(x_hat);
    free(sent);
    free(delta);
    free(thetas);
    free(mask);
}

static void test_delta_encode(void) {
    static const int overshoots[] = {0, 128, 255};
    for (size_t rows = 0; rows <= 3; rows++) {
        for (size_t columns = 0; columns <= 17; columns++) {
            for (size_t block = 1; block <= 8; block++) {
                for (int32_t theta = 0; theta <= 5; theta++) {
                    for (int i = 0; i < 3; i++) {
                        check_delta(rows, columns, block, theta, overshoots[i], 4);
                        check_delta(rows, columns, block, theta * 10000, overshoots[i], 16);
                    }
                }
            }
        }
    }
}

/* Tables of 1 to 40 segments, by a scan over all of them and division. */
static void test_piecewise(void) {
    for (size_t segments = 1; segments <= 40; segments++) {
        int32_t *breaks = allocate(segments * sizeof *breaks);
        int32_t *values = allocate(segments * sizeof *values);
        int32_t *slopes = allocate(segments * sizeof *slopes);
        for (size_t i = 0; i < segments; i++) {
            breaks[i] = i ? breaks[i - 1] + 1 + (int32_t)(next_random() % (i % 3 ? 2000 : 2)) : 0;
            values[i] = (int32_t)(next_random() % 65536);
            slopes[i] = i + 1 < segments ? (int32_t)(next_random() % 65537) : 0;
        }
        const mf_piecewise table = {breaks, values, slopes, segments, (int32_t)(segments % 2) << 15};
        const size_t n = EDGES + 3 * segments + 500;
        int32_t *x = allocate(n * sizeof *x), *out = allocate(n * sizeof *out);
        memcpy(x, edges, sizeof edges);
        for (size_t k = EDGES; k < n; k++) {
            const size_t near = (k - EDGES) / 3;
            x[k] = near < segments ? breaks[near] + (int32_t)(k % 3) - 1
                                   : (int32_t)next_random() >> (k % 20);
            x[k] = k % 2 ? x[k] : -x[k];
        }
        mf_piecewise_array(x, n, &table, out);
        for (size_t k = 0; k < n; k++) {
            const int64_t a = x[k] < 0 ? -(int64_t)x[k] : x[k];
            size_t i = segments - 1;
            while (breaks[i] > a) {
                i--;
            }
            const int64_t y = values[i] + expected_rsh(slopes[i] * (a - breaks[i]), 16);
            check_equal("piecewise", out[k], table.centre + (x[k] < 0 ? -y : y));
        }
        mf_piecewise_array(x, n, &table, x); /* in place */
        check_equal("piecewise in place", memcmp(x, out, n * sizeof *x), 0);
        free(breaks), free(values), free(slopes), free(x), free(out);
    }
}

static void test_rescale_groups(void) {
    enum { ROWS = 2, COLUMNS = 12 };
    int32_t *acc = allocate(ROWS * COLUMNS * sizeof *acc), *fx = allocate(ROWS * COLUMNS * sizeof *fx);
    for (size_t i = 0; i < ROWS * COLUMNS; i++) {
        acc[i] = (int32_t)next_random();
    }
    for (size_t count = 1; count <= COLUMNS; count++) {
        if (COLUMNS % count) {
            continue;
        }
        int32_t *mu = allocate(count * sizeof *mu);
        for (size_t i = 0; i < count; i++) {
            mu[i] = (int32_t)(next_random() % 32768);
        }
        mf_rescale_i32(acc, ROWS, COLUMNS, mu, count, 9, fx);
        for (size_t i = 0; i < ROWS * COLUMNS; i++) {
            const int64_t factor = mu[(i % COLUMNS) * count / COLUMNS];
            check_equal("rescale by groups", fx[i],
                        expected_clamp(expected_rsh(acc[i] * factor, 9), 32));
        }
        free(mu);
    }
    free(acc);
    free(fx);
}

static void test_selections(void) {
    int32_t out[EDGES];
    mf_relu(edges, EDGES, out);
    for (size_t i = 0; i < EDGES; i++) {
        check_equal("relu", out[i], edges[i] < 0 ? 0 : edges[i]);
    }
    for (size_t k = 0; k < EDGES; k++) {
        mf_one_hot(edges[k], 9, out);
        for (size_t i = 0; i < 9; i++) {
            const double x = edges[k] / 65536.0 - (double)i;
            check_equal("one_hot", out[i], x >= -0.5 && x < 0.5 ? 65536 : 0);
        }
    }
}

static void test_entering(void) {
    const double x[] = {0.5 / 65536, 1.5 / 65536, -2.5 / 65536, 1e300, -1e300, INFINITY, -INFINITY,
                        NAN, 32767.99999};
    const int32_t expected[] = {0, 2, -2, INT32_MAX, INT32_MIN, INT32_MAX, INT32_MIN, INT32_MIN,
                                2147483647};
    enum { COUNT = sizeof x / sizeof x[0] };
    int32_t fx[COUNT];
    mf_enter_fx_f64(x, COUNT, fx);
    for (size_t i = 0; i < COUNT; i++) {
        check_equal("entering", fx[i], expected[i]);
        const float narrow = (float)(fabs(x[i]) < 1e38 || x[i] - x[i] != 0 ? x[i] : 0);
        mf_enter_fx_f32(&narrow, 1, &fx[i]);
        check_equal("entering float", fx[i], narrow == 0 ? 0 : expected[i]);
    }
}

static void test_read_loop(void) {
    for (size_t n = 0; n < 100; n++) {
        uint64_t *words = allocate(n * sizeof *words), expected = 0;
        for (size_t k = 0; k < n; k++) {
            words[k] = (uint64_t)next_random() << 33;
            expected += words[k];
        }
        check_equal("read loop", mf_read_loop(words, n) == expected, 1);
        free(words);
    }
}

int main(void) {
    test_rsh();
    test_quantize();
    test_rescale();
    test_binary();
    test_nonlinearities();
    test_piecewise();
    test_delta_encode();
    test_rescale_groups();
    test_selections();
    test_entering();
    test_read_loop();
    printf("native kernels: %ld checks, %ld failed\n", checks, failures);
    return failures ? 1 : 0;
}
