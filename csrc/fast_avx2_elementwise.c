/* Elementwise integer kernels on AVX2, bit for bit those of elementwise.c, which does the remainders.
 *
 * quantize and rescale compute floor(v c + 1/2), c = mu 2^-s, in binary64. It is exact: v and mu have 46
 * bits together, so v c + 1/2 is a multiple of 2^-s below 2^(46-s) + 1/2 and has at most 53 bits for
 * s <= 48; beyond, |v c| <= 1/4, and however the sum is rounded, its floor is 0. */
#include "fast_avx2.h"

#ifdef __AVX2__

#include "elementwise.h"

MF_INLINE void keep(void *at, __m256i v) { _mm256_storeu_si256((__m256i *)at, v); }

/* The four numbers after the rounding shift, limited to low ... high. */
MF_INLINE __m128i scaled(__m128i v, __m256d c, __m256d half, __m256d low, __m256d high) {
    const __m256d y = _mm256_floor_pd(_mm256_fmadd_pd(_mm256_cvtepi32_pd(v), c, half));
    return _mm256_cvtpd_epi32(_mm256_min_pd(_mm256_max_pd(y, low), high));
}

/* 2^-s by its exponent. */
MF_INLINE double unit_for(int s) {
    const uint64_t bits = (uint64_t)(1023 - s) << 52;
    double unit;
    memcpy(&unit, &bits, sizeof unit);
    return unit;
}

MF_INLINE __m256d half_for(int s) { return _mm256_set1_pd(s > 0 ? 0.5 : 0.0); }

/* (v mu + 2^(s-1)) >> s for 17 <= s <= 46: with v = 2^16 a + b, 0 <= b < 2^16, it is
 * floor((a mu + floor(b mu / 2^16) + 2^(s-17)) / 2^(s-16)), whose numerator fits 32 bits. */
MF_INLINE __m256i eight_codes(const int32_t *v, __m256i upper_mu, __m256i mu, __m256i half,
                              __m128i shift) {
    const __m256i x = load(v), a = _mm256_madd_epi16(x, upper_mu), b = _mm256_mulhi_epu16(x, mu);
    return _mm256_sra_epi32(_mm256_add_epi32(_mm256_add_epi32(a, half), b), shift);
}

/* Those of quantize(), sixteen at a time; returns how many were done. */
static size_t quantize_32(const int32_t *v, size_t n, int32_t mu, int s, int bits, int16_t *codes) {
    const __m256i by = _mm256_set1_epi32(mu), upper_by = _mm256_slli_epi32(by, 16);
    const __m256i half = _mm256_set1_epi32(1 << (s - 17));
    const __m128i shift = _mm_cvtsi32_si128(s - 16);
    const int end = 1 << (bits - 1);
    const __m256i low = _mm256_set1_epi16((int16_t)-end), high = _mm256_set1_epi16((int16_t)(end - 1));
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m256i a = eight_codes(v + i, upper_by, by, half, shift);
        const __m256i b = eight_codes(v + i + 8, upper_by, by, half, shift);
        const __m256i both = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xD8);
        keep(codes + i, _mm256_min_epi16(_mm256_max_epi16(both, low), high));
    }
    return i;
}

static void quantize(const int32_t *v, size_t n, int32_t mu, int s, int bits, int16_t *codes) {
    const __m256d c = _mm256_set1_pd(mu * unit_for(s)), half = half_for(s);
    const double end = (double)(1 << (bits - 1));
    const __m256d low = _mm256_set1_pd(-end), high = _mm256_set1_pd(end - 1);
    size_t i = s >= 17 && s <= 46 ? quantize_32(v, n, mu, s, bits, codes) : 0;
    for (; i + 8 <= n; i += 8) {
        const __m256i x = load(v + i);
        const __m128i a = scaled(_mm256_castsi256_si128(x), c, half, low, high);
        const __m128i b = scaled(_mm256_extracti128_si256(x, 1), c, half, low, high);
        _mm_storeu_si128((__m128i *)(codes + i), _mm_packs_epi32(a, b));
    }
    mf_quantize(v + i, n - i, mu, s, bits, codes + i);
}

MF_INLINE __m256i rescaled(__m256i acc, __m256d c, __m256d d, __m256d half) {
    const __m256d low = _mm256_set1_pd(INT32_MIN), high = _mm256_set1_pd(INT32_MAX);
    const __m128i a = scaled(_mm256_castsi256_si128(acc), c, half, low, high);
    const __m128i b = scaled(_mm256_extracti128_si256(acc, 1), d, half, low, high);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
}

/* One factor for all. */
static void rescale_group(const int32_t *acc, size_t n, int32_t mu, int s, int32_t *fx) {
    const __m256d c = _mm256_set1_pd(mu * unit_for(s)), half = half_for(s);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        keep(fx + i, rescaled(load(acc + i), c, c, half));
    }
    mf_rescale_i32(acc + i, 1, n - i, &mu, 1, s, fx + i);
}

/* A factor for each. */
static void rescale_row(const int32_t *acc, size_t n, const int32_t *mu, int s, int32_t *fx) {
    const __m256d unit = _mm256_set1_pd(unit_for(s)), half = half_for(s);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256i m = load(mu + i);
        const __m256d c = _mm256_cvtepi32_pd(_mm256_castsi256_si128(m));
        const __m256d d = _mm256_cvtepi32_pd(_mm256_extracti128_si256(m, 1));
        keep(fx + i, rescaled(load(acc + i), _mm256_mul_pd(c, unit), _mm256_mul_pd(d, unit), half));
    }
    if (i < n) {
        mf_rescale_i32(acc + i, 1, n - i, mu + i, n - i, s, fx + i);
    }
}

static void rescale_i32(const int32_t *acc, size_t rows, size_t columns, const int32_t *mu,
                        size_t mu_count, int s, int32_t *fx) {
    if (mu_count == 1) {
        rescale_group(acc, rows * columns, mu[0], s, fx);
        return;
    }
    const size_t each = columns / mu_count;
    for (size_t r = 0; r < rows; r++, acc += columns, fx += columns) {
        if (each == 1) {
            rescale_row(acc, columns, mu, s, fx);
            continue;
        }
        for (size_t g = 0; g < mu_count; g++) {
            rescale_group(acc + g * each, each, mu[g], s, fx + g * each);
        }
    }
}

/* INT32_MAX where a >= 0, else INT32_MIN. */
MF_INLINE __m256i limit_of(__m256i a) {
    return _mm256_xor_si256(_mm256_srai_epi32(a, 31), _mm256_set1_epi32(INT32_MAX));
}

/* `limit` where the sign of `overflow` is set, else `v`. */
MF_INLINE __m256i limited(__m256i v, __m256i limit, __m256i overflow) {
    return _mm256_castps_si256(_mm256_blendv_ps(
        _mm256_castsi256_ps(v), _mm256_castsi256_ps(limit), _mm256_castsi256_ps(overflow)));
}

static void add(const int32_t *a, const int32_t *b, size_t n, int32_t *out) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256i x = load(a + i), y = load(b + i), v = _mm256_add_epi32(x, y);
        const __m256i over = _mm256_and_si256(_mm256_xor_si256(x, v), _mm256_xor_si256(y, v));
        keep(out + i, limited(v, limit_of(x), over));
    }
    mf_add(a + i, b + i, n - i, out + i);
}

static void sub(const int32_t *a, const int32_t *b, size_t n, int32_t *out) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256i x = load(a + i), y = load(b + i), v = _mm256_sub_epi32(x, y);
        const __m256i over = _mm256_and_si256(_mm256_xor_si256(x, v), _mm256_xor_si256(x, y));
        keep(out + i, limited(v, limit_of(x), over));
    }
    mf_sub(a + i, b + i, n - i, out + i);
}

/* Bits 16 ... 47 of the products; they saturate where bits 47 ... 63 differ. */
static void mul(const int32_t *a, const int32_t *b, size_t n, int32_t *out) {
    const __m256i half = _mm256_set1_epi64x(1 << 15);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256i x = load(a + i), y = load(b + i);
        const __m256i even = _mm256_add_epi64(_mm256_mul_epi32(x, y), half);
        const __m256i odd = _mm256_add_epi64(
            _mm256_mul_epi32(_mm256_srli_epi64(x, 32), _mm256_srli_epi64(y, 32)), half);
        const __m256i v =
            _mm256_blend_epi32(_mm256_srli_epi64(even, 16), _mm256_slli_epi64(odd, 16), 0xAA);
        const __m256i high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
        const __m256i fits =
            _mm256_cmpeq_epi32(_mm256_srai_epi32(high, 15), _mm256_srai_epi32(high, 31));
        keep(out + i, limited(limit_of(high), v, fits));
    }
    mf_mul(a + i, b + i, n - i, out + i);
}

/* mf_tanh; two neighbours of the table in one gathered element. */
MF_INLINE __m256i eight_tanh(__m256i x, const int32_t *table) {
    const __m256i a = _mm256_min_epu32(_mm256_abs_epi32(x), _mm256_set1_epi32((1 << 19) - 1));
    const __m256i i = _mm256_permute4x64_epi64(_mm256_srli_epi32(a, 11), 0xD8);
    const long long *pairs = (const long long *)(const void *)table;
    const __m256 p =
        _mm256_castsi256_ps(_mm256_i32gather_epi64(pairs, _mm256_castsi256_si128(i), 4));
    const __m256 q =
        _mm256_castsi256_ps(_mm256_i32gather_epi64(pairs, _mm256_extracti128_si256(i, 1), 4));
    const __m256i low = _mm256_castps_si256(_mm256_shuffle_ps(p, q, 0x88));
    const __m256i high = _mm256_castps_si256(_mm256_shuffle_ps(p, q, 0xDD));
    const __m256i run = _mm256_and_si256(a, _mm256_set1_epi32(2047));
    /* Both fit int16, so that the sums of pairs are products of the lower halves. */
    const __m256i rise = _mm256_madd_epi16(_mm256_sub_epi32(high, low), run);
    const __m256i part = _mm256_srai_epi32(_mm256_add_epi32(rise, _mm256_set1_epi32(1 << 9)), 10);
    return _mm256_sign_epi32(_mm256_add_epi32(_mm256_slli_epi32(low, 1), part), x);
}

static void tanh_fx(const int32_t *x, size_t n, const int32_t *table, int32_t *out) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        keep(out + i, eight_tanh(load(x + i), table));
    }
    mf_tanh_array(x + i, n - i, table, out + i);
}

static void sigmoid_fx(const int32_t *x, size_t n, const int32_t *table, int32_t *out) {
    const __m256i one = _mm256_set1_epi32(1), middle = _mm256_set1_epi32(1 << 15);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256i v = load(x + i);
        const __m256i half = _mm256_add_epi32(_mm256_srai_epi32(v, 1), _mm256_and_si256(v, one));
        const __m256i y = _mm256_add_epi32(eight_tanh(half, table), one);
        keep(out + i, _mm256_add_epi32(middle, _mm256_srai_epi32(y, 1)));
    }
    mf_sigmoid_array(x + i, n - i, table, out + i);
}

MF_INLINE __m256i eight_piecewise(__m256i x, const mf_piecewise *t) {
    const __m256i a = _mm256_abs_epi32(x), half = _mm256_set1_epi64x(1 << 15);
    __m256i at = _mm256_setzero_si256();
    for (size_t left = t->segments; left > 1; left -= left / 2) {
        const __m256i next = _mm256_add_epi32(at, _mm256_set1_epi32((int)(left / 2)));
        const __m256i start = _mm256_i32gather_epi32(t->breaks, next, 4);
        const __m256i behind = _mm256_cmpeq_epi32(_mm256_min_epu32(start, a), start);
        at = _mm256_blendv_epi8(at, next, behind);
    }
    const __m256i run = _mm256_sub_epi32(a, _mm256_i32gather_epi32(t->breaks, at, 4));
    const __m256i slope = _mm256_i32gather_epi32(t->slopes, at, 4);
    const __m256i even = _mm256_add_epi64(_mm256_mul_epu32(slope, run), half);
    const __m256i odd = _mm256_add_epi64(
        _mm256_mul_epu32(_mm256_srli_epi64(slope, 32), _mm256_srli_epi64(run, 32)), half);
    const __m256i rise =
        _mm256_blend_epi32(_mm256_srli_epi64(even, 16), _mm256_slli_epi64(odd, 16), 0xAA);
    const __m256i y = _mm256_add_epi32(_mm256_i32gather_epi32(t->values, at, 4), rise);
    const __m256i sign = _mm256_srai_epi32(x, 31); /* of 0: +, where vpsign would give 0 */
    return _mm256_add_epi32(_mm256_set1_epi32(t->centre),
                            _mm256_sub_epi32(_mm256_xor_si256(y, sign), sign));
}

static void piecewise(const int32_t *x, size_t n, const mf_piecewise *table, int32_t *out) {
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        keep(out + i, eight_piecewise(load(x + i), table));
    }
    mf_piecewise_array(x + i, n - i, table, out + i);
}

MF_INLINE __m256i widened(const int16_t *at) {
    return _mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)at));
}

MF_INLINE __m128i narrowed(__m256i v) {
    return _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
}

/* Blocks of one element: see elementwise.c. Returns how many were done. */
static size_t encode_row(const int16_t *x, const int16_t *x_hat, size_t n, const int32_t *theta,
                         int overshoot, int bits, int32_t *delta, uint8_t *mask, int16_t *sent) {
    const __m256i one = _mm256_set1_epi32(1), by = _mm256_set1_epi32(overshoot);
    const __m256i high = _mm256_set1_epi32((1 << (bits - 1)) - 1);
    const __m256i low = _mm256_set1_epi32(-(1 << (bits - 1)));
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256i now = widened(x + i), old = widened(x_hat + i), least = load(theta + i);
        const __m256i change = _mm256_sub_epi32(now, old), size = _mm256_abs_epi32(change);
        const __m256i stays = _mm256_cmpgt_epi32(_mm256_max_epi32(least, one), size);
        const __m256i part = _mm256_mullo_epi32(_mm256_min_epi32(size, least), by);
        const __m256i more = _mm256_srli_epi32(part, 8);
        const __m256i aim = _mm256_add_epi32(now, _mm256_sign_epi32(more, change));
        const __m256i code = _mm256_min_epi32(_mm256_max_epi32(aim, low), high);
        const __m256i next = _mm256_blendv_epi8(code, old, stays);
        const __m128i moved = narrowed(_mm256_andnot_si256(stays, one));
        keep(delta + i, _mm256_sub_epi32(next, old));
        _mm_storeu_si128((__m128i *)(sent + i), narrowed(next));
        _mm_storel_epi64((__m128i *)(mask + i), _mm_packs_epi16(moved, moved));
    }
    return i;
}

/* The same for codes of at most WHOLE16 bits, whose changes and sums fit 16. */
enum { WHOLE16 = 14 };

static size_t encode_row_16(const int16_t *x, const int16_t *x_hat, size_t n, const int32_t *theta,
                            int overshoot, int bits, int32_t *delta, uint8_t *mask, int16_t *sent) {
    const __m256i one = _mm256_set1_epi16(1), by = _mm256_set1_epi16((short)(overshoot << 8));
    const __m256i high = _mm256_set1_epi16((short)((1 << (bits - 1)) - 1));
    const __m256i low = _mm256_set1_epi16((short)-(1 << (bits - 1)));
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m256i now = load(x + i), old = load(x_hat + i);
        const __m256i both = _mm256_packs_epi32(load(theta + i), load(theta + i + 8));
        const __m256i least = _mm256_permute4x64_epi64(both, 0xD8);
        const __m256i change = _mm256_sub_epi16(now, old), size = _mm256_abs_epi16(change);
        const __m256i stays = _mm256_cmpgt_epi16(_mm256_max_epi16(least, one), size);
        const __m256i more = _mm256_mulhi_epu16(_mm256_min_epi16(size, least), by);
        const __m256i aim = _mm256_add_epi16(now, _mm256_sign_epi16(more, change));
        const __m256i code = _mm256_min_epi16(_mm256_max_epi16(aim, low), high);
        const __m256i next = _mm256_blendv_epi8(code, old, stays);
        const __m256i found = _mm256_sub_epi16(next, old), moved = _mm256_andnot_si256(stays, one);
        keep(delta + i, _mm256_cvtepi16_epi32(_mm256_castsi256_si128(found)));
        keep(delta + i + 8, _mm256_cvtepi16_epi32(_mm256_extracti128_si256(found, 1)));
        keep(sent + i, next);
        _mm_storeu_si128((__m128i *)(mask + i), _mm_packs_epi16(_mm256_castsi256_si128(moved),
                                                              _mm256_extracti128_si256(moved, 1)));
    }
    return i;
}

static void delta_encode(const int16_t *x, const int16_t *x_hat, size_t rows, size_t columns,
                         size_t block, const int32_t *theta, int overshoot, int bits,
                         int32_t *delta, uint8_t *mask, int16_t *sent) {
    if (block != 1) {
        mf_delta_encode(x, x_hat, rows, columns, block, theta, overshoot, bits, delta, mask, sent);
        return;
    }
    for (size_t r = 0, at = 0; r < rows; r++, at += columns) {
        size_t i = 0;
        if (bits <= WHOLE16) {
            i = encode_row_16(x + at, x_hat + at, columns, theta, overshoot, bits, delta + at, mask + at,
                              sent + at);
        } else {
            i = encode_row(x + at, x_hat + at, columns, theta, overshoot, bits, delta + at, mask + at,
                           sent + at);
        }
        if (i < columns) {
            mf_delta_encode(x + at + i, x_hat + at + i, 1, columns - i, 1, theta + i, overshoot, bits,
                            delta + at + i, mask + at + i, sent + at + i);
        }
    }
}

/* Products with 2^16 are exact or infinite; conversion gives INT32_MIN for what is beyond int32. */
MF_INLINE __m256i eight_fx(__m256 x) {
    const __m256 v = _mm256_mul_ps(x, _mm256_set1_ps(65536.0f));
    const __m256 beyond = _mm256_cmp_ps(v, _mm256_set1_ps(2147483648.0f), _CMP_GE_OQ);
    return _mm256_xor_si256(_mm256_cvtps_epi32(v), _mm256_castps_si256(beyond));
}

/* x - x is 0 for finite numbers, else NaN. */
static int enter_f32(const float *x, size_t n, int32_t *fx) {
    __m256 none = _mm256_setzero_ps();
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256 v = _mm256_loadu_ps(x + i);
        none = _mm256_or_ps(none, _mm256_sub_ps(v, v));
        keep(fx + i, eight_fx(v));
    }
    if (i < n) { /* masked stores are many times slower than whole ones */
        const __m256i lanes = first_lanes(n - i);
        const __m256 v = _mm256_maskload_ps(x + i, lanes);
        none = _mm256_or_ps(none, _mm256_sub_ps(v, v));
        _mm256_maskstore_epi32(fx + i, lanes, eight_fx(v));
    }
    return _mm256_movemask_ps(_mm256_cmp_ps(none, none, _CMP_UNORD_Q)) == 0;
}

const mf_elementwise mf_avx2_elementwise = {
    .quantize = quantize,
    .rescale_i32 = rescale_i32,
    .rescale_i64 = mf_rescale_i64,
    .add = add,
    .sub = sub,
    .mul = mul,
    .sigmoid = sigmoid_fx,
    .tanh = tanh_fx,
    .piecewise = piecewise,
    .delta_encode = delta_encode,
    .add_f32 = mf_avx2_add_f32,
    .sub_f32 = mf_avx2_sub_f32,
    .mul_f32 = mf_avx2_mul_f32,
    .sigmoid_f32 = mf_avx2_sigmoid_f32,
    .tanh_f32 = mf_avx2_tanh_f32,
    .enter_f32 = enter_f32,
    .lstm = mf_avx2_lstm,
    .gru = mf_avx2_gru,
    .copy_f32 = mf_avx2_copy_f32,
    .finite_f32 = mf_avx2_finite_f32,
    .refine_f32 = mf_avx2_refine_f32,
    .refine_halves_f32 = mf_avx2_refine_halves_f32,
    .refine_i32 = mf_avx2_refine_i32,
    .unpacks_terms = 1,
};

#endif
