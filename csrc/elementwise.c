#include "elementwise.h"

#include "fixed_point.h"

void mf_quantize(const int32_t *v, size_t n, int32_t mu, int s, int bits, int16_t *codes) {
    const mf_shift shift = mf_make_shift(s);
    const int64_t high = ((int64_t)1 << (bits - 1)) - 1, low = -high - 1;
    for (size_t i = 0; i < n; i++) {
        codes[i] = (int16_t)mf_clamp(mf_rsh((int64_t)v[i] * mu, shift), low, high);
    }
}

/* One body for the four types of an accumulator. */
#define MF_RESCALE(name, type)                                                                     \
    void name(const type *acc, size_t rows, size_t columns, const int32_t *mu, size_t mu_count,    \
              int s, int32_t *fx) {                                                                \
        const mf_shift shift = mf_make_shift(s);                                                   \
        if (mu_count == 1) {                                                                       \
            const size_t n = rows * columns;                                                       \
            for (size_t i = 0; i < n; i++) {                                                       \
                fx[i] = mf_sat32(mf_rsh(mf_mul_wrap((int64_t)acc[i], mu[0]), shift));              \
            }                                                                                      \
            return;                                                                                \
        }                                                                                          \
        for (size_t r = 0; r < rows; r++, acc += columns, fx += columns) {                         \
            for (size_t c = 0; c < columns; c++) {                                                 \
                fx[c] = mf_sat32(mf_rsh(mf_mul_wrap((int64_t)acc[c], mu[c]), shift));              \
            }                                                                                      \
        }                                                                                          \
    }

MF_RESCALE(mf_rescale_i32, int32_t)
MF_RESCALE(mf_rescale_i64, int64_t)
MF_RESCALE(mf_rescale_f32, float)
MF_RESCALE(mf_rescale_f64, double)

void mf_add(const int32_t *a, const int32_t *b, size_t n, int32_t *out) {
    for (size_t i = 0; i < n; i++) {
        out[i] = mf_add_sat(a[i], b[i]);
    }
}

void mf_sub(const int32_t *a, const int32_t *b, size_t n, int32_t *out) {
    for (size_t i = 0; i < n; i++) {
        out[i] = mf_sub_sat(a[i], b[i]);
    }
}

void mf_mul(const int32_t *a, const int32_t *b, size_t n, int32_t *out) {
    for (size_t i = 0; i < n; i++) {
        out[i] = mf_mul_sat(a[i], b[i]);
    }
}

void mf_tanh_array(const int32_t *x, size_t n, const int32_t *table, int32_t *out) {
    for (size_t i = 0; i < n; i++) {
        out[i] = mf_tanh(x[i], table);
    }
}

void mf_sigmoid_array(const int32_t *x, size_t n, const int32_t *table, int32_t *out) {
    for (size_t i = 0; i < n; i++) {
        out[i] = mf_sigmoid(x[i], table);
    }
}

static uint8_t encode_block(const int16_t *x, const int16_t *x_hat, size_t n, int32_t threshold,
                            int32_t *delta, int16_t *sent) {
    int32_t largest = 0;
    for (size_t i = 0; i < n; i++) {
        const int32_t d = x[i] - x_hat[i], magnitude = d < 0 ? -d : d;
        largest = magnitude > largest ? magnitude : largest;
    }
    const int send = largest >= threshold;
    for (size_t i = 0; i < n; i++) {
        delta[i] = send ? x[i] - x_hat[i] : 0;
        sent[i] = send ? x[i] : x_hat[i];
    }
    return (uint8_t)send;
}

/* Blocks of one element, without branches. */
static void encode_elements(const int16_t *x, const int16_t *x_hat, size_t n, int32_t threshold,
                            int32_t *delta, uint8_t *mask, int16_t *sent) {
    for (size_t i = 0; i < n; i++) {
        const int32_t d = x[i] - x_hat[i], magnitude = d < 0 ? -d : d;
        const int send = magnitude >= threshold;
        delta[i] = send ? d : 0;
        sent[i] = send ? x[i] : x_hat[i];
        mask[i] = (uint8_t)send;
    }
}

void mf_delta_encode(const int16_t *x, const int16_t *x_hat, size_t rows, size_t columns,
                     size_t block, int32_t theta, int32_t *delta, uint8_t *mask, int16_t *sent) {
    const int32_t threshold = theta > 1 ? theta : 1; /* A block of zeros is never sent. */
    if (block == 1) {
        encode_elements(x, x_hat, rows * columns, threshold, delta, mask, sent);
        return;
    }
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < columns; c += block) {
            const size_t at = r * columns + c, left = columns - c;
            *mask++ = encode_block(x + at, x_hat + at, left < block ? left : block, threshold,
                                   delta + at, sent + at);
        }
    }
}
