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
        const size_t group = columns / mu_count;                                                   \
        for (size_t r = 0; r < rows; r++, acc += columns, fx += columns) {                         \
            if (group == 1) {                                                                      \
                for (size_t c = 0; c < columns; c++) {                                             \
                    fx[c] = mf_sat32(mf_rsh(mf_mul_wrap((int64_t)acc[c], mu[c]), shift));          \
                }                                                                                  \
                continue;                                                                          \
            }                                                                                      \
            for (size_t g = 0, c = 0; g < mu_count; g++) {                                         \
                for (const size_t end = c + group; c < end; c++) {                                 \
                    fx[c] = mf_sat32(mf_rsh(mf_mul_wrap((int64_t)acc[c], mu[g]), shift));          \
                }                                                                                  \
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

void mf_relu(const int32_t *x, size_t n, int32_t *out) {
    for (size_t i = 0; i < n; i++) {
        out[i] = x[i] > 0 ? x[i] : 0;
    }
}

void mf_one_hot(int32_t index, size_t n, int32_t *out) {
    const int64_t nearest = mf_rsh(index, mf_make_shift(16));
    for (size_t i = 0; i < n; i++) {
        out[i] = (int64_t)i == nearest ? INT32_C(1) << 16 : 0;
    }
}

/* The codes that are sent, if they are: beyond x by overshoot / 2^8 of the change, clamped to a code. */
typedef struct {
    int32_t overshoot, low, high;
} mf_aim;

static inline int32_t aimed(int32_t x, int32_t change, int32_t theta, mf_aim aim) {
    const int32_t sign = change >> 31; /* 0 or -1 */
    const int32_t magnitude = (change ^ sign) - sign, least = magnitude < theta ? magnitude : theta;
    const int32_t beyond = (least * aim.overshoot) >> 8, v = x + ((beyond ^ sign) - sign);
    const int32_t raised = v < aim.low ? aim.low : v;
    return raised > aim.high ? aim.high : raised;
}

static inline int moved(int32_t change, int32_t theta) {
    return (change < 0 ? -change : change) >= (theta > 1 ? theta : 1); /* 0 is never sent. */
}

static uint8_t encode_block(const int16_t *x, const int16_t *x_hat, size_t n, int32_t theta,
                            mf_aim aim, int32_t *delta, int16_t *sent) {
    int send = 0;
    for (size_t i = 0; i < n; i++) {
        send |= moved(x[i] - x_hat[i], theta);
    }
    for (size_t i = 0; i < n; i++) {
        const int32_t old = x_hat[i], new = send ? aimed(x[i], x[i] - old, theta, aim) : old;
        delta[i] = new - old;
        sent[i] = (int16_t)new;
    }
    return (uint8_t)send;
}

/* A row of blocks of one element, without branches. */
static void encode_elements(const int16_t *x, const int16_t *x_hat, size_t n, const int32_t *theta,
                            mf_aim aim, int32_t *delta, uint8_t *mask, int16_t *sent) {
    for (size_t i = 0; i < n; i++) {
        const int32_t old = x_hat[i], change = x[i] - old;
        const int send = moved(change, theta[i]);
        const int32_t new = send ? aimed(x[i], change, theta[i], aim) : old;
        delta[i] = new - old;
        sent[i] = (int16_t)new;
        mask[i] = (uint8_t)send;
    }
}

void mf_delta_encode(const int16_t *x, const int16_t *x_hat, size_t rows, size_t columns,
                     size_t block, const int32_t *theta, int overshoot, int bits, int32_t *delta,
                     uint8_t *mask, int16_t *sent) {
    const int32_t high = (INT32_C(1) << (bits - 1)) - 1;
    const mf_aim aim = {overshoot, -high - 1, high};
    const size_t blocks = (columns + block - 1) / block;
    for (size_t r = 0; r < rows; r++, mask += blocks) {
        const size_t row = r * columns;
        if (block == 1) {
            encode_elements(x + row, x_hat + row, columns, theta, aim, delta + row, mask,
                            sent + row);
            continue;
        }
        for (size_t k = 0; k < blocks; k++) {
            const size_t at = row + k * block, left = columns - k * block;
            mask[k] = encode_block(x + at, x_hat + at, left < block ? left : block, theta[k], aim,
                                   delta + at, sent + at);
        }
    }
}
