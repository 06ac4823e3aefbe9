/* Elementwise reference kernels of the integer arithmetic (docs/arithmetic.md).
 *
 * Arrays are contiguous, [n] or [rows, columns] row by row. The caller owns all buffers. An output
 * may be the same buffer as an input of the same type, but must not overlap one partially.
 */
#ifndef MODELFLEX_ELEMENTWISE_H
#define MODELFLEX_ELEMENTWISE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* codes = clamp(rsh(v * mu, s), -2^(bits-1), 2^(bits-1) - 1), 2 <= bits <= 16. */
void mf_quantize(const int32_t *v, size_t n, int32_t mu, int s, int bits, int16_t *codes);

/* fx = sat32(rsh(acc * mu, s)); each of the mu_count entries of mu serves equally many neighbouring
 * columns of a row. The floating-point variants take the exact integers that a GEMM left, |acc| < 2^63. Exact if
 * |acc * mu| < 2^62. */
void mf_rescale_i32(const int32_t *acc, size_t rows, size_t columns, const int32_t *mu,
                    size_t mu_count, int s, int32_t *fx);
void mf_rescale_i64(const int64_t *acc, size_t rows, size_t columns, const int32_t *mu,
                    size_t mu_count, int s, int32_t *fx);
void mf_rescale_f32(const float *acc, size_t rows, size_t columns, const int32_t *mu,
                    size_t mu_count, int s, int32_t *fx);
void mf_rescale_f64(const double *acc, size_t rows, size_t columns, const int32_t *mu,
                    size_t mu_count, int s, int32_t *fx);

/* Saturating sum and difference; sat32(rsh(a * b, 16)). */
void mf_add(const int32_t *a, const int32_t *b, size_t n, int32_t *out);
void mf_sub(const int32_t *a, const int32_t *b, size_t n, int32_t *out);
void mf_mul(const int32_t *a, const int32_t *b, size_t n, int32_t *out);

/* `table` holds MF_TANH_ENTRIES integers round(2^15 * tanh(i / 32)), at most 2^15 - 1. */
void mf_tanh_array(const int32_t *x, size_t n, const int32_t *table, int32_t *out);
void mf_sigmoid_array(const int32_t *x, size_t n, const int32_t *table, int32_t *out);

/* max(x, 0). */
void mf_relu(const int32_t *x, size_t n, int32_t *out);

/* out[i] is 1 (2^16) where i is the whole number nearest to `index` (ties upwards), else 0. */
void mf_one_hot(int32_t index, size_t n, int32_t *out);

/* Delta encoding with blocks of `block` neighbours in a row (the last of a row may be shorter), each
 * with its theta >= 0. A block is sent if its largest |x - x_hat| is at least theta and not 0:
 *   sent:  mask = 1, sent = clamp(x + sign(x - x_hat) * (min(|x - x_hat|, theta) * overshoot >> 8));
 *   else:  mask = 0, sent = x_hat;   delta = sent - x_hat.
 * The clamp is to codes of `bits` bits, 2 ... 16, as x must be; 0 <= overshoot < 2^8.
 * x, x_hat, delta, sent: [rows, columns]; mask: [rows, ceil(columns / block)]; theta: one row of it. */
void mf_delta_encode(const int16_t *x, const int16_t *x_hat, size_t rows, size_t columns,
                     size_t block, const int32_t *theta, int overshoot, int bits, int32_t *delta,
                     uint8_t *mask, int16_t *sent);

#ifdef __cplusplus
}
#endif

#endif
