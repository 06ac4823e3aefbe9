#include "elementwise_f32.h"

#include <math.h>

void mf_add_f32(const float *a, const float *b, size_t n, float *out) {
    for (size_t i = 0; i < n; i++) {
        out[i] = a[i] + b[i];
    }
}

void mf_sub_f32(const float *a, const float *b, size_t n, float *out) {
    for (size_t i = 0; i < n; i++) {
        out[i] = a[i] - b[i];
    }
}

void mf_mul_f32(const float *a, const float *b, size_t n, float *out) {
    for (size_t i = 0; i < n; i++) {
        out[i] = a[i] * b[i];
    }
}

void mf_sigmoid_f32(const float *x, size_t n, float *out) {
    for (size_t i = 0; i < n; i++) {
        out[i] = 0.5f + 0.5f * tanhf(0.5f * x[i]); /* never overflows */
    }
}

void mf_tanh_f32(const float *x, size_t n, float *out) {
    for (size_t i = 0; i < n; i++) {
        out[i] = tanhf(x[i]);
    }
}

void mf_relu_f32(const float *x, size_t n, float *out) {
    for (size_t i = 0; i < n; i++) {
        out[i] = x[i] > 0.0f ? x[i] : 0.0f;
    }
}

void mf_one_hot_f32(float index, size_t n, float *out) {
    const float nearest = floorf(index + 0.5f);
    for (size_t i = 0; i < n; i++) {
        out[i] = (float)i == nearest ? 1.0f : 0.0f;
    }
}

void mf_linear_f32(const float *a, size_t out, size_t inputs, const float *bias, const float *x,
                   float *y) {
    for (size_t r = 0; r < out; r++, a += inputs) {
        float sum = bias ? bias[r] : 0.0f;
        for (size_t j = 0; j < inputs; j++) {
            sum += a[j] * x[j];
        }
        y[r] = sum;
    }
}

void mf_linear_windows_f32(const float *a, size_t out, size_t inputs, const float *bias,
                           const int32_t *taps, size_t positions, const float *map, float *y) {
    for (size_t r = 0; r < out; r++, a += inputs) {
        for (size_t p = 0; p < positions; p++, y++) {
            const int32_t *const seen = taps + p * inputs;
            float sum = bias ? bias[r] : 0.0f;
            for (size_t j = 0; j < inputs; j++) {
                sum += seen[j] < 0 ? 0.0f : a[j] * map[seen[j]];
            }
            *y = sum;
        }
    }
}
