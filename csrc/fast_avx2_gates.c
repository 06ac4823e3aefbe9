/* LSTM and GRU from the sums of their products to the new state on AVX2; bit for bit what the kernels of elementwise.c
 * make one after another. CHUNK units pass through one short loop after another, so that vectors do not wait for
 * each other. */
#include "fast_avx2.h"
#include "gates.h"

#ifdef __AVX2__

enum { CHUNK = 64, VECTOR = 8 };

/* Arguments of tanh, and the entries of the table that they read. */
typedef struct {
    int32_t x[CHUNK];
    uint32_t entry[CHUNK];
} arguments;

/* Units first ... first + count - 1: whole vectors of them, up to CHUNK, or less than one. `whole` is constant. */
typedef struct {
    size_t first, count;
    int whole;
} span;

MF_INLINE __m256i read(const int32_t *at, span s) {
    return s.whole ? load(at) : _mm256_maskload_epi32(at, first_lanes(s.count));
}

MF_INLINE void keep(int32_t *at, __m256i v) { _mm256_storeu_si256((__m256i *)at, v); }

MF_INLINE void put(int32_t *at, __m256i v, span s) {
    if (s.whole) {
        keep(at, v);
    } else {
        _mm256_maskstore_epi32(at, first_lanes(s.count), v);
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

MF_INLINE __m256i add(__m256i a, __m256i b) {
    const __m256i v = _mm256_add_epi32(a, b);
    return limited(v, limit_of(a), _mm256_and_si256(_mm256_xor_si256(a, v), _mm256_xor_si256(b, v)));
}

MF_INLINE __m256i sub(__m256i a, __m256i b) {
    const __m256i v = _mm256_sub_epi32(a, b);
    return limited(v, limit_of(a), _mm256_and_si256(_mm256_xor_si256(a, v), _mm256_xor_si256(a, b)));
}

MF_INLINE __m256i upper(__m256i v) { return _mm256_srli_epi64(v, 32); }

/* Sums with mu < 2^15 as fx. */
MF_INLINE __m256i rescaled(__m256i v, __m256i mu, int shift) {
    const __m256i half = _mm256_set1_epi64x(1LL << (shift - 1));
    const __m256i even = _mm256_add_epi64(_mm256_mul_epi32(v, mu), half);
    const __m256i odd = _mm256_add_epi64(_mm256_mul_epi32(upper(v), upper(mu)), half);
    const __m128i right = _mm_cvtsi32_si128(shift), rest = _mm_cvtsi32_si128(32 - shift);
    const __m256i fx =
        _mm256_blend_epi32(_mm256_srl_epi64(even, right), _mm256_sll_epi64(odd, rest), 0xAA);
    /* It fits if the bits above are those of its sign. */
    const __m256i high = _mm256_blend_epi32(upper(even), odd, 0xAA);
    const __m256i fits =
        _mm256_cmpeq_epi32(_mm256_sra_epi32(high, right), _mm256_srai_epi32(fx, 31));
    return limited(limit_of(high), fx, fits);
}

/* The same where sums are bounded, and shift + left = s >= 17. With v 2^left = 2^16 a + b, 0 <= b < 2^16:
 * floor((2^16 a mu + b mu + 2^(s-1)) / 2^s) = floor((a mu + floor(b mu / 2^16) + 2^(s-17)) / 2^(s-16)). */
MF_INLINE __m256i rescaled_bounded(__m256i v, __m256i mu, int shift, int left) {
    const __m256i u = _mm256_sll_epi32(v, _mm_cvtsi32_si128(left));
    const __m256i a = _mm256_madd_epi16(u, _mm256_slli_epi32(mu, 16));
    const __m256i b = _mm256_mulhi_epu16(u, mu);
    const __m256i half = _mm256_set1_epi32(1 << (shift + left - 17));
    return _mm256_sra_epi32(_mm256_add_epi32(_mm256_add_epi32(a, half), b),
                            _mm_cvtsi32_si128(shift + left - 16));
}

MF_INLINE __m256i fx_of(__m256i v, __m256i mu, int shift, int left, int bounded) {
    return bounded ? rescaled_bounded(v, mu, shift, left) : rescaled(v, mu, shift);
}

/* The product with 0 <= y < 2^16: with x = 2^16 a + b, 0 <= b < 2^16, it is a y + ((b y + 2^15) >> 16). */
MF_INLINE __m256i mul(__m256i x, __m256i y) {
    const __m256i a = _mm256_mullo_epi32(_mm256_srai_epi32(x, 16), y);
    const __m256i b = _mm256_mullo_epi32(_mm256_and_si256(x, _mm256_set1_epi32(0xFFFF)), y);
    const __m256i low = _mm256_srli_epi32(_mm256_add_epi32(b, _mm256_set1_epi32(1 << 15)), 16);
    return _mm256_add_epi32(a, low);
}

/* --- tanh ---------------------------------------------------------------------------------------- */
MF_INLINE __m256i magnitude(__m256i x) {
    return _mm256_min_epu32(_mm256_abs_epi32(x), _mm256_set1_epi32((1 << 19) - 1));
}

MF_INLINE void argue(arguments *to, size_t i, __m256i x) {
    keep(to->x + i, x);
    _mm256_storeu_si256((__m256i *)(to->entry + i), _mm256_srli_epi32(magnitude(x), 11));
}

/* sigmoid(x) = 1/2 + tanh((x + 1) >> 1) / 2, constant long before INT32_MAX. */
MF_INLINE void argue_half(arguments *to, size_t i, __m256i x, int bounded) {
    const __m256i v = bounded ? x : _mm256_min_epi32(x, _mm256_set1_epi32(INT32_MAX - 1));
    argue(to, i, _mm256_srai_epi32(_mm256_add_epi32(v, _mm256_set1_epi32(1)), 1));
}

/* Eight entries: loads to all lanes, of which one stays. Faster than to gather, where that is microcode. */
#define MF_ENTRIES(i, j, lanes)                                                                    \
    _mm256_blend_epi32(broadcast_32(rises + entry[i]), broadcast_32(rises + entry[j]), lanes)

MF_INLINE __m256i entries(const int32_t *rises, const uint32_t *entry) {
    const __m256i a = MF_ENTRIES(0, 1, 0x02), b = MF_ENTRIES(2, 3, 0x08);
    const __m256i c = MF_ENTRIES(4, 5, 0x20), d = MF_ENTRIES(6, 7, 0x80);
    return _mm256_blend_epi32(_mm256_blend_epi32(a, b, 0x0C), _mm256_blend_epi32(c, d, 0xC0), 0xF0);
}

/* (2^11 low + rise run + 2^9) >> 10: the sum of two products of 16 bits. */
MF_INLINE __m256i tanh_of(const arguments *from, size_t i, const int32_t *rises) {
    const __m256i x = load(from->x + i);
    const __m256i run = _mm256_and_si256(magnitude(x), _mm256_set1_epi32(2047));
    const __m256i by = _mm256_or_si256(run, _mm256_set1_epi32(1 << 27));
    const __m256i y = _mm256_madd_epi16(entries(rises, from->entry + i), by);
    const __m256i sum = _mm256_add_epi32(y, _mm256_set1_epi32(1 << 9));
    return _mm256_sign_epi32(_mm256_srai_epi32(sum, 10), x);
}

MF_INLINE __m256i sigmoid_of(const arguments *from, size_t i, const int32_t *rises) {
    const __m256i y = tanh_of(from, i, rises);
    return _mm256_srai_epi32(_mm256_add_epi32(y, _mm256_set1_epi32((1 << 16) + 1)), 1);
}

/* --- cells --------------------------------------------------------------------------------------- */
/* Sums of one gate of a product, and how they become fx. */
typedef struct {
    const int32_t *sums, *mu;
    int shift, left;
} source;

MF_INLINE source source_of(const mf_gate_sums *s, const int32_t *sums, size_t k, size_t first) {
    const source made = {sums + s->at[k] + first, s->mu + s->at[k] + first, s->shift, s->left};
    return made;
}

MF_INLINE __m256i fx_at(const source *from, size_t i, span s, int bounded) {
    return fx_of(read(from->sums + i, s), read(from->mu + i, s), from->shift, from->left, bounded);
}

MF_INLINE void argue_gate(const mf_gates *g, const int32_t *x, const int32_t *h, size_t k, int half,
                          arguments *to, span s, int bounded) {
    const source a = source_of(&g->x, x, k, s.first), b = source_of(&g->h, h, k, s.first);
    for (size_t i = 0; i < s.count; i += VECTOR) {
        const __m256i from_x = fx_at(&a, i, s, bounded), from_h = fx_at(&b, i, s, bounded);
        const __m256i v = bounded ? _mm256_add_epi32(from_x, from_h) : add(from_x, from_h);
        if (half) {
            argue_half(to, i, v, bounded);
        } else {
            argue(to, i, v);
        }
    }
}

MF_INLINE void lstm(const mf_gates *g, const int32_t *x, const int32_t *h, const int32_t *old,
                    int32_t *next, int32_t *out, span s, int bounded) {
    enum { I, F, G, O };
    const int32_t *rises = g->rises;
    arguments gates[4], cell;
    int32_t opened[CHUNK];
    argue_gate(g, x, h, I, 1, gates + I, s, bounded);
    argue_gate(g, x, h, F, 1, gates + F, s, bounded);
    argue_gate(g, x, h, G, 0, gates + G, s, bounded);
    argue_gate(g, x, h, O, 1, gates + O, s, bounded);
    for (size_t i = 0; i < s.count; i += VECTOR) {
        const __m256i kept = mul(read(old + s.first + i, s), sigmoid_of(gates + F, i, rises));
        const __m256i made = mul(tanh_of(gates + G, i, rises), sigmoid_of(gates + I, i, rises));
        const __m256i c = add(kept, made);
        put(next + s.first + i, c, s);
        argue(&cell, i, c);
        keep(opened + i, sigmoid_of(gates + O, i, rises));
    }
    for (size_t i = 0; i < s.count; i += VECTOR) {
        put(out + s.first + i, mul(tanh_of(&cell, i, rises), load(opened + i)), s);
    }
}

MF_INLINE void gru(const mf_gates *g, const int32_t *x, const int32_t *h, const int32_t *old,
                   int32_t *out, span s, int bounded) {
    enum { R, Z, N };
    const int32_t *rises = g->rises;
    const source a = source_of(&g->x, x, N, s.first), b = source_of(&g->h, h, N, s.first);
    arguments gates[2], fresh;
    argue_gate(g, x, h, R, 1, gates + R, s, bounded);
    argue_gate(g, x, h, Z, 1, gates + Z, s, bounded);
    for (size_t i = 0; i < s.count; i += VECTOR) {
        const __m256i reset = mul(fx_at(&b, i, s, bounded), sigmoid_of(gates + R, i, rises));
        const __m256i from_x = fx_at(&a, i, s, bounded);
        argue(&fresh, i, bounded ? _mm256_add_epi32(from_x, reset) : add(from_x, reset));
    }
    for (size_t i = 0; i < s.count; i += VECTOR) {
        const __m256i made = tanh_of(&fresh, i, rises);
        const __m256i change = sub(read(old + s.first + i, s), made);
        const __m256i moved = mul(change, sigmoid_of(gates + Z, i, rises));
        put(out + s.first + i, add(made, moved), s);
    }
}

/* All units of a cell, chunk by chunk, then what fills no vector. */
#define MF_CHUNKS(cell, bounded, ...)                                                              \
    do {                                                                                           \
        const size_t end = g->units / VECTOR * VECTOR, rest = g->units - end;                      \
        for (size_t first = 0; first < end; first += CHUNK) {                                      \
            const span s = {first, end - first < CHUNK ? end - first : CHUNK, 1};                  \
            cell(g, x, h, __VA_ARGS__, s, bounded);                                                \
        }                                                                                          \
        if (rest) {                                                                                \
            const span s = {end, rest, 0};                                                         \
            cell(g, x, h, __VA_ARGS__, s, bounded);                                                \
        }                                                                                          \
    } while (0)

void mf_avx2_lstm(const mf_gates *g, const int32_t *x, const int32_t *h, const int32_t *old,
                  int32_t *next, int32_t *out) {
    if (g->bounded) {
        MF_CHUNKS(lstm, 1, old, next, out);
    } else {
        MF_CHUNKS(lstm, 0, old, next, out);
    }
}

void mf_avx2_gru(const mf_gates *g, const int32_t *x, const int32_t *h, const int32_t *old,
                 int32_t *out) {
    if (g->bounded) {
        MF_CHUNKS(gru, 1, old, out);
    } else {
        MF_CHUNKS(gru, 0, old, out);
    }
}

#endif
