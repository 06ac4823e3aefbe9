/* Elementwise integer kernels on NEON, bit for bit those of elementwise.c, which does the remainders.
 *
 * Its shifts round as rsh does: srshl adds half of the last bit that stays, without overflow. */
#include "fast_neon.h"

#ifdef __ARM_FEATURE_DOTPROD

#include "elementwise.h"
#include "elementwise_f32.h"

/* sat32(rsh(v mu, s)) */
MF_INLINE int32x4_t scaled(int32x4_t v, int32x4_t mu, int64x2_t left) {
    const int64x2_t low = vmull_s32(vget_low_s32(v), vget_low_s32(mu));
    return vqmovn_high_s64(vqmovn_s64(vrshlq_s64(low, left)),
                           vrshlq_s64(vmull_high_s32(v, mu), left));
}

static void quantize(const int32_t *v, size_t n, int32_t mu, int s, int bits, int16_t *codes) {
    const int32x4_t by = vdupq_n_s32(mu), low = vdupq_n_s32(-(1 << (bits - 1)));
    const int32x4_t high = vdupq_n_s32((1 << (bits - 1)) - 1);
    const int64x2_t left = vdupq_n_s64(-s);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const int32x4_t a = scaled(vld1q_s32(v + i), by, left);
        const int32x4_t b = scaled(vld1q_s32(v + i + 4), by, left);
        const int16x4_t first = vmovn_s32(vminq_s32(vmaxq_s32(a, low), high));
        vst1q_s16(codes + i, vmovn_high_s32(first, vminq_s32(vmaxq_s32(b, low), high)));
    }
    mf_quantize(v + i, n - i, mu, s, bits, codes + i);
}

/* `step` is 1, a factor for each, or 0, one for all. */
MF_INLINE void rescale_some(const int32_t *acc, size_t n, const int32_t *mu, size_t step, int s,
                            int32_t *fx) {
    const int64x2_t left = vdupq_n_s64(-s);
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        const int32x4_t by = step ? vld1q_s32(mu + i) : vdupq_n_s32(mu[0]);
        vst1q_s32(fx + i, scaled(vld1q_s32(acc + i), by, left));
    }
    if (i < n) {
        mf_rescale_i32(acc + i, 1, n - i, mu + step * i, step ? n - i : 1, s, fx + i);
    }
}

static void rescale_i32(const int32_t *acc, size_t rows, size_t columns, const int32_t *mu,
                        size_t mu_count, int s, int32_t *fx) {
    if (mu_count == 1) {
        rescale_some(acc, rows * columns, mu, 0, s, fx);
        return;
    }
    const size_t each = columns / mu_count;
    for (size_t r = 0; r < rows; r++, acc += columns, fx += columns) {
        if (each == 1) {
            rescale_some(acc, columns, mu, 1, s, fx);
            continue;
        }
        for (size_t g = 0; g < mu_count; g++) {
            rescale_some(acc + g * each, each, mu + g, 0, s, fx + g * each);
        }
    }
}

/* Four elements at a time by `four`, the rest by `rest`. */
#define BINARY(name, rest, four)                                                                   \
    static void name(const int32_t *a, const int32_t *b, size_t n, int32_t *out) {                 \
        size_t i = 0;                                                                              \
        for (; i + 4 <= n; i += 4) {                                                               \
            vst1q_s32(out + i, four(vld1q_s32(a + i), vld1q_s32(b + i)));                          \
        }                                                                                          \
        rest(a + i, b + i, n - i, out + i);                                                        \
    }

MF_INLINE int32x4_t four_products(int32x4_t a, int32x4_t b) {
    const int64x2_t low = vmull_s32(vget_low_s32(a), vget_low_s32(b));
    return vqrshrn_high_n_s64(vqrshrn_n_s64(low, 16), vmull_high_s32(a, b), 16);
}

BINARY(add, mf_add, vqaddq_s32)
BINARY(sub, mf_sub, vqsubq_s32)
BINARY(mul, mf_mul, four_products)

/* mf_tanh; two neighbours of the table in one load. */
MF_INLINE int32x4_t four_tanh(int32x4_t x, const int32_t *table) {
    const uint32x4_t size = vreinterpretq_u32_s32(vabsq_s32(x));
    const uint32x4_t a = vminq_u32(size, vdupq_n_u32((UINT32_C(1) << 19) - 1));
    const uint32x4_t i = vshrq_n_u32(a, 11);
    const int32x4_t p = vcombine_s32(vld1_s32(table + vgetq_lane_u32(i, 0)),
                                     vld1_s32(table + vgetq_lane_u32(i, 1)));
    const int32x4_t q = vcombine_s32(vld1_s32(table + vgetq_lane_u32(i, 2)),
                                     vld1_s32(table + vgetq_lane_u32(i, 3)));
    const int32x4_t low = vuzp1q_s32(p, q), high = vuzp2q_s32(p, q);
    const int32x4_t run = vreinterpretq_s32_u32(vandq_u32(a, vdupq_n_u32(2047)));
    const int32x4_t rise = vmulq_s32(vsubq_s32(high, low), run);
    const int32x4_t y = vrsraq_n_s32(vshlq_n_s32(low, 1), rise, 10), sign = vshrq_n_s32(x, 31);
    return vsubq_s32(veorq_s32(y, sign), sign);
}

MF_INLINE int32x4_t four_sigmoid(int32x4_t x, const int32_t *table) {
    return vrsraq_n_s32(vdupq_n_s32(1 << 15), four_tanh(vrshrq_n_s32(x, 1), table), 1);
}

static void tanh_fx(const int32_t *x, size_t n, const int32_t *table, int32_t *out) {
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        vst1q_s32(out + i, four_tanh(vld1q_s32(x + i), table));
    }
    mf_tanh_array(x + i, n - i, table, out + i);
}

static void sigmoid_fx(const int32_t *x, size_t n, const int32_t *table, int32_t *out) {
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        vst1q_s32(out + i, four_sigmoid(vld1q_s32(x + i), table));
    }
    mf_sigmoid_array(x + i, n - i, table, out + i);
}

/* --- cells --------------------------------------------------------------------------------------- */
MF_INLINE int32x4_t four_fx(const mf_gate_sums *s, const int32_t *sums, size_t gate, size_t unit) {
    const size_t i = s->at[gate] + unit;
    return scaled(vld1q_s32(sums + i), vld1q_s32(s->mu + i), vdupq_n_s64(-s->shift));
}

MF_INLINE int32x4_t four_gates(const mf_gates *g, const int32_t *x, const int32_t *h, size_t gate,
                               size_t unit) {
    return vqaddq_s32(four_fx(&g->x, x, gate, unit), four_fx(&g->h, h, gate, unit));
}

static void lstm(const mf_gates *g, const int32_t *x, const int32_t *h, const int32_t *old,
                 int32_t *next, int32_t *out) {
    enum { I, F, G, O };
    size_t k = 0;
    for (; k + 4 <= g->units; k += 4) {
        const int32x4_t in = four_sigmoid(four_gates(g, x, h, I, k), g->table);
        const int32x4_t forget = four_sigmoid(four_gates(g, x, h, F, k), g->table);
        const int32x4_t fresh = four_tanh(four_gates(g, x, h, G, k), g->table);
        const int32x4_t open = four_sigmoid(four_gates(g, x, h, O, k), g->table);
        const int32x4_t kept = four_products(forget, vld1q_s32(old + k));
        const int32x4_t c = vqaddq_s32(kept, four_products(in, fresh));
        vst1q_s32(next + k, c);
        vst1q_s32(out + k, four_products(open, four_tanh(c, g->table)));
    }
    const mf_gates rest = mf_gates_from(g, k);
    mf_lstm(&rest, x, h, old + k, next + k, out + k);
}

static void gru(const mf_gates *g, const int32_t *x, const int32_t *h, const int32_t *old,
                int32_t *out) {
    enum { R, Z, N };
    size_t k = 0;
    for (; k + 4 <= g->units; k += 4) {
        const int32x4_t reset = four_sigmoid(four_gates(g, x, h, R, k), g->table);
        const int32x4_t keep = four_sigmoid(four_gates(g, x, h, Z, k), g->table);
        const int32x4_t carried = four_products(reset, four_fx(&g->h, h, N, k));
        const int32x4_t sum = vqaddq_s32(four_fx(&g->x, x, N, k), carried);
        const int32x4_t fresh = four_tanh(sum, g->table);
        const int32x4_t change = vqsubq_s32(vld1q_s32(old + k), fresh);
        vst1q_s32(out + k, vqaddq_s32(fresh, four_products(keep, change)));
    }
    const mf_gates rest = mf_gates_from(g, k);
    mf_gru(&rest, x, h, old + k, out + k);
}

/* Compilers write the other loops with NEON themselves. */
const mf_elementwise mf_neon_elementwise = {
    .quantize = quantize,
    .rescale_i32 = rescale_i32,
    .rescale_i64 = mf_rescale_i64,
    .add = add,
    .sub = sub,
    .mul = mul,
    .sigmoid = sigmoid_fx,
    .tanh = tanh_fx,
    .piecewise = mf_piecewise_array,
    .delta_encode = mf_delta_encode,
    .add_f32 = mf_add_f32,
    .sub_f32 = mf_sub_f32,
    .mul_f32 = mf_mul_f32,
    .sigmoid_f32 = mf_neon_sigmoid_f32,
    .tanh_f32 = mf_neon_tanh_f32,
    .lstm = lstm,
    .gru = gru,
    .refine_f32 = mf_refine_f32,
    .refine_i32 = mf_refine_i32,
};

#endif
