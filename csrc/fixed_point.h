/* Fixed-point scalars (docs/arithmetic.md).
 *
 * fx is int32_t with 16 fractional bits. Intermediates are 64 bits wide and computed in uint64_t,
 * so that values beyond the proven bounds wrap, as they do in NumPy, instead of being undefined.
 * Conversion of a large uint64_t to int64_t and right shifts of negative numbers are
 * implementation-defined in C99; the assertions below refuse a compiler that does not wrap and
 * extend the sign, or whose int is narrower than 32 bits: sums of int16_t are computed in int.
 */
#ifndef MODELFLEX_FIXED_POINT_H
#define MODELFLEX_FIXED_POINT_H

#include <stdint.h>

/* C99 has no static assertion: an array of negative size stops the compiler. */
#define MF_ASSERT(name, condition) typedef char mf_assert_##name[(condition) ? 1 : -1]
MF_ASSERT(right_shift_extends_the_sign, (INT64_C(-3) >> 1) == -2);
MF_ASSERT(int_has_32_bits, sizeof(int) >= 4);
MF_ASSERT(conversion_wraps, (int64_t)UINT64_MAX == -1);

#define MF_TANH_ENTRIES 257
#define MF_MAX_SHIFT 62

/* rsh(a, s) with what depends on s alone computed once; |s| <= MF_MAX_SHIFT. */
typedef struct {
    uint64_t half;
    int left;
    int right;
} mf_shift;

static inline mf_shift mf_make_shift(int s) {
    mf_shift shift = {0, 0, 0};
    if (s >= 1) {
        shift.half = UINT64_C(1) << (s - 1);
        shift.right = s;
    } else {
        shift.left = -s;
    }
    return shift;
}

/* floor((a + 2^(s-1)) / 2^s) for s >= 1, a * 2^-s for s <= 0. */
static inline int64_t mf_rsh(int64_t a, mf_shift s) {
    return (int64_t)(((uint64_t)a << s.left) + s.half) >> s.right;
}

static inline int64_t mf_mul_wrap(int64_t a, int64_t b) {
    return (int64_t)((uint64_t)a * (uint64_t)b);
}

static inline int64_t mf_clamp(int64_t a, int64_t low, int64_t high) {
    const int64_t raised = a < low ? low : a;
    return raised > high ? high : raised;
}

static inline int32_t mf_sat32(int64_t a) { return (int32_t)mf_clamp(a, INT32_MIN, INT32_MAX); }

/* Sum and difference in 32 bits, which vectorise better than in 64: they overflowed if the sign of
 * the result contradicts the operands, and then the sign of `a` tells the direction. */
static inline int32_t mf_add_sat(int32_t a, int32_t b) {
    const uint32_t x = (uint32_t)a, y = (uint32_t)b, sum = x + y;
    const uint32_t limit = (x >> 31) + (uint32_t)INT32_MAX;
    return (int32_t)((((x ^ sum) & (y ^ sum)) >> 31) ? limit : sum);
}

static inline int32_t mf_sub_sat(int32_t a, int32_t b) {
    const uint32_t x = (uint32_t)a, y = (uint32_t)b, difference = x - y;
    const uint32_t limit = (x >> 31) + (uint32_t)INT32_MAX;
    return (int32_t)((((x ^ y) & (x ^ difference)) >> 31) ? limit : difference);
}

static inline int32_t mf_mul_sat(int32_t a, int32_t b) {
    return mf_sat32(((int64_t)a * b + (1 << 15)) >> 16);
}

/* tanh by linear interpolation between 257 entries of 15 fractional bits, 1/32 apart: odd, and
 * constant from |x| = 8 on. `table` ascends from 0 to at most 2^15. */
static inline int32_t mf_tanh(int32_t x, const int32_t *table) {
    const int32_t sign = x >> 31; /* 0 or -1 */
    const uint32_t magnitude = ((uint32_t)x ^ (uint32_t)sign) - (uint32_t)sign;
    const uint32_t a = magnitude < (UINT32_C(1) << 19) ? magnitude : (UINT32_C(1) << 19) - 1;
    const uint32_t i = a >> 11;
    const int32_t fraction = (int32_t)(a & 2047u);
    const int32_t y =
        2 * table[i] + (((table[i + 1] - table[i]) * fraction + (1 << 9)) >> 10);
    return (y ^ sign) - sign;
}

/* 1/2 + tanh(x/2)/2 */
static inline int32_t mf_sigmoid(int32_t x, const int32_t *table) {
    const int32_t half = (x >> 1) + (x & 1); /* rsh(x, 1) without overflow */
    return (1 << 15) + ((mf_tanh(half, table) + 1) >> 1);
}

#endif
