/* LSTM and GRU steps in one call, of reference and of this processor, against the elementwise kernels that they take
 * the place of, one after another: random and extreme sums, all numbers of units with remainders. */
#define _POSIX_C_SOURCE 200112L
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "elementwise.h"
#include "fixed_point.h"
#include "packed.h"
#include "plan.h"

enum { MOST = 200 };

static long checks, failures;
static int32_t table[MF_TANH_ENTRIES], rises[MF_RISES];

static void check_equal(const char *what, const int32_t *found, const int32_t *expected, size_t n) {
    checks++;
    if (memcmp(found, expected, n * sizeof *found) && ++failures <= 20) {
        fprintf(stderr, "FAILED %s of %zu units (%s)\n", what, n, mf_isa());
    }
}

static uint32_t next_random(void) {
    static uint64_t state = 7;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}

/* |value| < bound: random bits of any magnitude, or the end. */
static int32_t below(uint64_t bound) {
    const uint64_t all = (uint64_t)next_random() << 31 | next_random();
    const uint64_t most = bound > UINT64_C(1) << 31 ? UINT64_C(1) << 31 : bound;
    const uint64_t v = next_random() % 8 == 0 ? most - 1 : (all >> next_random() % 40) % most;
    return next_random() % 2 ? (int32_t)v : -(int32_t)v;
}

static int32_t any_fx(void) {
    const uint32_t kind = next_random() % 10;
    return kind == 0 ? INT32_MIN : kind == 1 ? INT32_MAX : below(UINT64_C(1) << 31);
}

/* What a product left, as fx; gates may come in any order. */
static void rescaled(const mf_gate_sums *s, const int32_t *sums, size_t gates, size_t units,
                     int32_t *fx) {
    mf_rescale_i32(sums, 1, gates * units, s->mu, gates * units, s->shift, fx);
}

static void lstm(const mf_gates *g, const int32_t *x, const int32_t *h, int32_t *c, int32_t *out) {
    const size_t n = g->units;
    int32_t from_x[4 * MOST], from_h[4 * MOST], gate[4][MOST];
    rescaled(&g->x, x, 4, n, from_x);
    rescaled(&g->h, h, 4, n, from_h);
    for (int k = 0; k < 4; k++) {
        mf_add(from_x + g->x.at[k], from_h + g->h.at[k], n, gate[k]);
        (k == 2 ? mf_tanh_array : mf_sigmoid_array)(gate[k], n, table, gate[k]);
    }
    mf_mul(gate[1], c, n, c);
    mf_mul(gate[0], gate[2], n, gate[0]);
    mf_add(c, gate[0], n, c);
    mf_tanh_array(c, n, table, out);
    mf_mul(gate[3], out, n, out);
}

static void gru(const mf_gates *g, const int32_t *x, const int32_t *h, int32_t *state) {
    const size_t n = g->units;
    int32_t from_x[3 * MOST], from_h[3 * MOST], gate[2][MOST], fresh[MOST];
    rescaled(&g->x, x, 3, n, from_x);
    rescaled(&g->h, h, 3, n, from_h);
    for (int k = 0; k < 2; k++) {
        mf_add(from_x + g->x.at[k], from_h + g->h.at[k], n, gate[k]);
        mf_sigmoid_array(gate[k], n, table, gate[k]);
    }
    mf_mul(gate[0], from_h + g->h.at[2], n, fresh);
    mf_add(from_x + g->x.at[2], fresh, n, fresh);
    mf_tanh_array(fresh, n, table, fresh);
    mf_sub(state, fresh, n, state);
    mf_mul(gate[1], state, n, state);
    mf_add(fresh, state, n, state);
}

/* Sums of a product, mu and the order of the gates. */
static uint64_t fill(mf_gate_sums *s, size_t gates, size_t units, int32_t *mu, int32_t *sums) {
    const uint64_t bound = UINT64_C(1) << (1 + next_random() % 31);
    const size_t turn = next_random() % gates;
    s->mu = mu;
    s->shift = 1 + (int)(next_random() % 32);
    for (size_t k = 0; k < gates; k++) {
        s->at[k] = (k + turn) % gates * units;
    }
    for (size_t i = 0; i < gates * units; i++) {
        mu[i] = next_random() % 4 ? (int32_t)(16384 + next_random() % 16384)
                                  : (int32_t)(next_random() % 32768);
        sums[i] = bound >> 31 ? any_fx() : below(bound);
    }
    return bound >> 31 ? bound << 1 : bound;
}

static void test_units(const mf_elementwise *fast, size_t n) {
    int32_t x_mu[4 * MOST], h_mu[4 * MOST], *old = malloc(n * 4), *expected = malloc(n * 4);
    int32_t *next = malloc(n * 4), *out = malloc(n * 4), *out_b = malloc(n * 4);
    for (size_t gates = 3; gates <= 4; gates++) {
        /* Of their own size, so that nothing is read beyond. */
        int32_t *x = malloc(gates * n * 4), *h = malloc(gates * n * 4);
        mf_gates g = {.units = n, .table = table, .rises = rises};
        const uint64_t x_bound = fill(&g.x, gates, n, x_mu, x);
        const uint64_t h_bound = fill(&g.h, gates, n, h_mu, h);
        for (size_t i = 0; i < n; i++) {
            old[i] = next_random() % 2 ? any_fx() : below(1 << 18);
        }
        memcpy(expected, old, n * 4);
        mf_bound_gates(&g, x_bound, h_bound);
        for (; g.bounded >= 0; g.bounded--) {
            memcpy(next, old, n * 4);
            memcpy(expected, old, n * 4);
            if (gates == 4) {
                lstm(&g, x, h, expected, out_b);
                fast->lstm(&g, x, h, old, next, out);
                check_equal("cell of LSTM", next, expected, n);
                check_equal("LSTM", out, out_b, n);
                memcpy(next, old, n * 4);
                fast->lstm(&g, x, h, next, next, out);
            } else {
                gru(&g, x, h, expected);
                fast->gru(&g, x, h, old, next);
                check_equal("GRU", next, expected, n);
                memcpy(next, old, n * 4);
                fast->gru(&g, x, h, next, next);
            }
            check_equal("state in its place", next, expected, n);
        }
        free(x);
        free(h);
    }
    free(old);
    free(expected);
    free(next);
    free(out);
    free(out_b);
}

/* Numbers of any exponent, halves between two integers, and the ends. */
static void test_enter(const mf_elementwise *fast, size_t n) {
    float *x = malloc(n * sizeof *x);
    int32_t *found = malloc(n * 4), *expected = malloc(n * 4);
    for (size_t i = 0; i < n; i++) {
        const float part = (float)below(1 << 23) / (float)(1 << 22);
        x[i] = ldexpf(part, (int)(next_random() % 250) - 120);
        if (next_random() % 2) {
            x[i] = (float)below(1 << 20) / 131072.0f;
        }
        if (next_random() % 9 == 0) {
            x[i] = (next_random() % 2 ? 32768.0f : -32768.0f) + (float)below(4) / 256.0f;
        }
    }
    if (next_random() % 2) {
        static const float others[] = {NAN, INFINITY, -INFINITY};
        x[next_random() % n] = others[next_random() % 3];
    }
    checks++;
    failures += fast->enter_f32(x, n, found) != mf_finite_f32(x, n);
    mf_enter_fx_f32(x, n, expected);
    check_equal("entering numbers", found, expected, n);
    free(x);
    free(found);
    free(expected);
}

int main(void) {
    for (int i = 0; i < MF_TANH_ENTRIES; i++) {
        const double y = rint(32768.0 * tanh(i / 32.0));
        table[i] = y < 32767.0 ? (int32_t)y : 32767;
    }
    if (!mf_make_rises(table, rises)) {
        fputs("FAILED rises of tanh\n", stderr);
        return 1;
    }
    table[200] = 1 << 15;
    failures += mf_make_rises(table, rises);
    table[200] = table[201];
    table[0] = 1;
    failures += mf_make_rises(table, rises);
    table[0] = 0;
    mf_make_rises(table, rises);
    const char *const sets[] = {"portable", NULL};
    for (int set = 0; set < 2; set++) {
        mf_limit_isa(sets[set]);
        const mf_elementwise *fast = mf_elementwise_table();
        for (size_t n = 1; n <= MOST; n++) {
            for (int i = 0; i < 60; i++) {
                test_units(fast, n);
                if (fast->enter_f32) {
                    test_enter(fast, n);
                }
            }
        }
        printf("gates of %s: %ld checks, %ld failures\n", mf_isa(), checks, failures);
    }
    return failures != 0;
}
