/* Brute-force checks of progressive products, and of when they stop. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "elementwise.h"
#include "packed.h"
#include "refine_codes.h"

enum { MOST = 4096 };

static long checks, failures;

/* A linear congruential generator: the same numbers everywhere. */
static uint32_t below(uint32_t n) {
    static uint64_t state = 11;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((state >> 33) % n);
}

static float next_float(void) { return (float)below(2001) / 1000.0f - 1.0f; }

static void check(int good, const char *what, long a, long b) {
    checks++;
    if (!good && ++failures <= 20) {
        fprintf(stderr, "FAILED %s: %ld, %ld\n", what, a, b);
    }
}

/* --- floats -------------------------------------------------------------------------------------- */
static int ascend(const void *a, const void *b) { return *(const uint32_t *)a < *(const uint32_t *)b ? -1 : 1; }

static void check_floats(const float *y, const float *wanted, uint32_t rows, const char *what) {
    for (uint32_t r = 0; r < rows; r++) {
        check(fabsf(y[r] - wanted[r]) <= 2e-5f * fmaxf(1.0f, fabsf(wanted[r])), what, (long)r, (long)rows);
    }
}

/* Neither half holds what the other one has. */
static void test_halves(const mf_terms *t, const float *x, const float *bias, const float *wanted, uint32_t limit) {
    static float head[256], rest[256], y[64];
    const uint32_t step = t->width > 8 || 8 % t->width ? 8 * t->width : 8;
    const mf_halves halves = {head, rest, step * below(t->inputs / step + 1)};
    for (uint32_t i = 0; i < t->inputs; i++) {
        head[i] = i < halves.split ? x[i] : NAN;
        rest[i] = i < halves.split ? NAN : x[i];
    }
    mf_refine_budget b = {limit, 99, NULL, NULL, 0};
    mf_elementwise_table()->refine_halves_f32(t, &halves, bias, y, &b);
    check(b.used == limit, "terms of halves", (long)b.used, (long)limit);
    check_floats(y, wanted, t->rows, "refine_halves_f32");
}

static void test_floats(void) {
    static float u[MOST], v[MOST], c[64], x[256], bias[64], y[64], wanted[64];
    static uint32_t index[MOST];
    static const uint32_t widths[] = {1, 8, 2, 3};
    const uint32_t groups = 1 + below(4), width = widths[below(4)];
    const uint32_t rows = groups * (1 + below(11)), terms = 1 + below(7), blocks = 1 + below(80 / width + 1);
    const int dense = below(3) == 0, biased = below(2) != 0, offset = below(2) != 0;
    const int ascending = dense || below(2);
    const uint32_t kept = dense ? blocks : 1 + below(blocks);
    const mf_terms t = {rows, blocks * width, terms, groups, kept, width, u, v, dense ? NULL : index, offset ? c : NULL};
    for (uint32_t i = 0; i < rows * terms; i++) {
        u[i] = next_float();
    }
    for (uint32_t i = 0; i < terms * groups * kept * width; i++) {
        v[i] = next_float();
    }
    for (uint32_t i = 0; i < terms * groups; i++) {
        c[i] = next_float();
        for (uint32_t k = 0; k < kept; k++) {
            index[i * kept + k] = below(blocks);
        }
        if (ascending) {
            qsort(index + i * kept, kept, sizeof *index, ascend);
        }
    }
    for (uint32_t i = 0; i < t.inputs; i++) {
        x[i] = next_float();
    }
    for (uint32_t i = 0; i < rows; i++) {
        bias[i] = next_float();
    }
    const uint32_t limit = below(terms + 1);
    for (uint32_t r = 0; r < rows; r++) {
        double sum = biased ? bias[r] : 0;
        for (uint32_t n = 0; n < limit; n++) {
            const uint32_t row = n * groups + r / (rows / groups);
            double dot = offset ? c[row] : 0;
            for (uint32_t k = 0; k < kept; k++) {
                for (uint32_t j = 0; j < width; j++) {
                    const uint32_t block = dense ? k : index[row * kept + k];
                    dot += (double)v[(row * kept + k) * width + j] * x[block * width + j];
                }
            }
            sum += u[n * rows + r] * dot;
        }
        wanted[r] = (float)sum;
    }
    for (int fast = 0; fast < 2; fast++) {
        mf_refine_budget b = {limit, 99, NULL, NULL, 0};
        (fast ? mf_elementwise_table()->refine_f32 : mf_refine_f32)(&t, x, biased ? bias : NULL, y, &b);
        check(b.used == limit, "terms of floats", (long)b.used, (long)limit);
        check_floats(y, wanted, rows, fast ? "the fast refine_f32" : "refine_f32");
    }
    if (ascending && mf_elementwise_table()->refine_halves_f32) {
        test_halves(&t, x, biased ? bias : NULL, wanted, limit);
    }
}

/* --- integers ------------------------------------------------------------------------------------ */
/* Numbers of 8 bits, dense. */
static mf_matrix bytes(const uint8_t *codes, uint32_t out, uint32_t inputs, int by_columns) {
    mf_matrix m;
    memset(&m, 0, sizeof m);
    m.codes = codes;
    m.out = m.rows = m.rows_per_table = out;
    m.inputs = m.row_codes = inputs;
    m.block = m.block_rows = 1;
    m.bits = 8;
    m.grid = MF_GRID_SYMMETRIC;
    m.by_columns = (uint8_t)by_columns;
    return m;
}

static void test_integers(void) {
    static uint8_t v_codes[MOST], u_codes[MOST];
    static int16_t x[128], code[64];
    static int32_t mu[2], bias[64], c[64], acc[64], wanted[64], fx[64];
    static int64_t wide_bias[64], wide[64], sums[64], wide_c[64];
    const uint32_t groups = 1 + below(3), terms = 2 * (1 + below(4)), rows = groups * (1 + below(9));
    const uint32_t inputs = 1 + below(100), shift = 6 + below(6), limit = below(terms + 1);
    const mf_matrix v = bytes(v_codes, terms * groups, inputs, 0), u = bytes(u_codes, rows, terms, 1);
    for (uint32_t i = 0; i < v.out * inputs; i++) {
        v_codes[i] = (uint8_t)below(256);
    }
    for (uint32_t i = 0; i < rows * terms; i++) {
        u_codes[i] = (uint8_t)below(256);
    }
    for (uint32_t i = 0; i < inputs; i++) {
        x[i] = (int16_t)((int32_t)below(256) - 128);
    }
    for (uint32_t i = 0; i < v.out; i++) {
        wide_c[i] = c[i] = (int32_t)below(20000) - 10000;
    }
    for (uint32_t i = 0; i < rows; i++) {
        wide_bias[i] = bias[i] = (int32_t)below(20000) - 10000;
    }
    mu[0] = (int32_t)below(32768), mu[1] = (int32_t)below(32768);
    mf_stored_terms t = {&v, &u, NULL, NULL, groups, mu, 2, (int32_t)shift, (int32_t)(1 + below(32767)), 15, 8, NULL};
    const int offset = (int)below(3);
    t.c_i32 = offset == 1 ? c : NULL;
    t.c_i64 = offset == 2 ? wide_c : NULL;
    /* One product after the other, of all terms; then the columns of the first. */
    mf_linear_i64(&v, x, offset ? wide_c : NULL, sums);
    mf_rescale_i64(sums, 1, v.out / 2, mu, 1, t.shift, fx);
    mf_rescale_i64(sums + v.out / 2, 1, v.out / 2, mu + 1, 1, t.shift, fx + v.out / 2);
    mf_quantize(fx, v.out, t.code_mu, t.code_shift, t.code_bits, code);
    for (uint32_t r = 0; r < rows; r++) {
        wanted[r] = bias[r];
        for (uint32_t n = 0; n < limit; n++) {
            wanted[r] += (int8_t)u_codes[n * rows + r] * code[n * groups + r / (rows / groups)];
        }
    }
    mf_refine_budget b = {limit, 99, NULL, NULL, 0};
    mf_elementwise_table()->refine_i32(&t, x, bias, acc, &b);
    check(b.used == limit, "terms of integers", (long)b.used, (long)limit);
    mf_refine_i64(&t, x, wide_bias, wide, &b);
    for (uint32_t r = 0; r < rows; r++) {
        check(acc[r] == wanted[r], "refine_i32", acc[r], wanted[r]);
        check(wide[r] == wanted[r], "refine_i64", (long)wide[r], wanted[r]);
    }
}

/* --- deadlines ----------------------------------------------------------------------------------- */
typedef struct {
    uint64_t now;
    int64_t tick;
    long readings;
} counting_clock;

static uint64_t tick(void *context) {
    counting_clock *c = context;
    c->readings++;
    c->now += (uint64_t)c->tick;
    return c->now;
}

static void test_deadlines(void) {
    enum { TERMS = 9 };
    static const float u[TERMS * 2] = {0}, v[TERMS * 3] = {0}, x[3] = {0};
    const mf_terms t = {2, 3, TERMS, 1, 3, 1, u, v, NULL, NULL};
    float y[2];
    for (int fast = 0; fast < 2; fast++) {
        void (*refine)(const mf_terms *, const float *, const float *, float *, mf_refine_budget *) =
            fast ? mf_elementwise_table()->refine_f32 : mf_refine_f32;
        for (uint64_t deadline = 0; deadline < 40; deadline++) {
            for (int64_t move = -3; move <= 4; move++) {
                counting_clock c = {10, move, 0};
                mf_refine_budget b = {TERMS, 99, tick, &c, deadline};
                refine(&t, x, NULL, y, &b);
                uint32_t wanted = 0;
                for (uint64_t now = 10; wanted < TERMS && (now += (uint64_t)move) < deadline;) {
                    wanted++; /* a term begins: the clock was read before the deadline */
                }
                check(b.used == wanted, "terms before a deadline", (long)b.used, (long)wanted);
                check(c.readings == (long)wanted + (wanted < TERMS), "readings", c.readings, (long)wanted);
            }
        }
    }
}

static void test_shares(void) {
    counting_clock c = {100, 0, 0};
    uint32_t limits[2] = {3, 50}, used[2];
    uint64_t reserves[2] = {40, UINT64_MAX};
    const uint32_t shares[2] = {0, MF_WHOLE / 3};
    mf_budget b = {limits, used, reserves, tick, &c, 1040, NULL};
    mf_refine_budget made = mf_refine_share(&b, 0, 20, MF_WHOLE / 4);
    check(made.limit == 3 && made.used == 0, "limit", (long)made.limit, 3);
    check(made.deadline == 1000 - 675, "a quarter of 900", (long)made.deadline, 325);
    b.shares = shares;
    made = mf_refine_share(&b, 0, 20, MF_WHOLE);
    check(made.deadline == 100 && !mf_may_refine(&made), "no share", (long)made.deadline, 100);
    b.shares = NULL;
    made = mf_refine_share(&b, 1, 20, MF_WHOLE);
    check(made.limit == 20, "all terms", (long)made.limit, 20);
    check(made.deadline == 0, "nothing beside the reserve", (long)made.deadline, 0);
    b.reserves = NULL;
    b.shares = shares;
    b.deadline = 1000;
    made = mf_refine_share(&b, 1, 20, 1);
    check(made.deadline == 400, "a third of 900", (long)made.deadline, 400);
    b.shares = NULL;
    b.deadline = UINT64_MAX;
    made = mf_refine_share(&b, 0, 20, 1);
    check(made.deadline > 100 && made.deadline < UINT64_MAX / 1000, "a small share of much", 0, 0);
    b.deadline = 99; /* the clock is beyond */
    made = mf_refine_share(&b, 0, 20, 1);
    check(made.deadline == 99 && !mf_may_refine(&made), "a past deadline", (long)made.deadline, 99);
    b.clock = NULL;
    made = mf_refine_share(&b, 0, 20, 1);
    check(!made.clock && mf_may_refine(&made), "no deadline", 0, 0);
    made = mf_refine_share(NULL, 0, 20, 1);
    check(made.limit == 20 && !made.clock, "no budget", (long)made.limit, 20);
}

int main(void) {
    for (int i = 0; i < 3000; i++) {
        test_floats();
        test_integers();
    }
    test_deadlines();
    test_shares();
    printf("progressive products: %ld checks on %s, %ld failed\n", checks, mf_isa(), failures);
    return failures ? 1 : 0;
}
