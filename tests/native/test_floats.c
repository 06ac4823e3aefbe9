/* Brute-force checks of the kernels in floating point, in binary64 and by libm. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>

#include "elementwise_f32.h"

static long checks, failures;

/* A linear congruential generator: the same numbers everywhere. */
static uint32_t next_random(void) {
    static uint64_t state = 7;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}

static float next_float(void) { return (float)((double)next_random() / 2147483648.0 - 0.5); }

static void check_near(const char *what, double found, double expected) {
    checks++;
    if (!(fabs(found - expected) <= 1e-6 * fmax(1.0, fabs(expected))) && ++failures <= 20) {
        fprintf(stderr, "FAILED %s: found %.9g, expected %.9g\n", what, found, expected);
    }
}

static void test_products(void) {
    enum { OUT = 3, INPUTS = 5, POSITIONS = 4, MAP = 6 };
    float a[OUT * INPUTS], bias[OUT], map[MAP], y[OUT * POSITIONS];
    int32_t taps[POSITIONS * INPUTS];
    for (size_t i = 0; i < OUT * INPUTS; i++) {
        a[i] = next_float();
    }
    for (size_t i = 0; i < MAP; i++) {
        map[i] = next_float();
    }
    for (size_t i = 0; i < POSITIONS * INPUTS; i++) {
        taps[i] = (int32_t)(next_random() % (MAP + 1)) - 1;
    }
    bias[0] = 0.25f, bias[1] = -3.0f, bias[2] = 0.0f;
    mf_linear_f32(a, OUT, INPUTS, bias, map, y);
    for (size_t r = 0; r < OUT; r++) {
        double sum = bias[r];
        for (size_t j = 0; j < INPUTS; j++) {
            sum += (double)a[r * INPUTS + j] * map[j];
        }
        check_near("linear_f32", y[r], sum);
    }
    mf_linear_windows_f32(a, OUT, INPUTS, NULL, taps, POSITIONS, map, y);
    for (size_t r = 0; r < OUT; r++) {
        for (size_t p = 0; p < POSITIONS; p++) {
            double sum = 0.0;
            for (size_t j = 0; j < INPUTS; j++) {
                const int32_t at = taps[p * INPUTS + j];
                sum += at < 0 ? 0.0 : (double)a[r * INPUTS + j] * map[at];
            }
            check_near("linear_windows_f32", y[r * POSITIONS + p], sum);
        }
    }
}

static void test_elementwise(void) {
    const float x[] = {-100.0f, -1.5f, -0.0f, 0.5f, 2.0f, 100.0f};
    float out[6];
    mf_sigmoid_f32(x, 6, out);
    for (size_t i = 0; i < 6; i++) {
        check_near("sigmoid_f32", out[i], 1.0 / (1.0 + exp(-(double)x[i])));
    }
    mf_tanh_f32(x, 6, out);
    for (size_t i = 0; i < 6; i++) {
        check_near("tanh_f32", out[i], tanh((double)x[i]));
    }
    mf_relu_f32(x, 6, out);
    check_near("relu_f32 below", out[1], 0.0);
    check_near("relu_f32 above", out[5], 100.0);
    for (int k = -3; k <= 13; k++) {
        mf_one_hot_f32((float)k / 2.0f, 6, out);
        for (int i = 0; i < 6; i++) {
            check_near("one_hot_f32", out[i], k >= 2 * i - 1 && k < 2 * i + 1 ? 1.0 : 0.0);
        }
    }
}

int main(void) {
    test_products();
    test_elementwise();
    printf("native kernels of floats: %ld checks, %ld failed\n", checks, failures);
    return failures ? 1 : 0;
}
