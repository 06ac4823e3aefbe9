/* Products of codes of 8 bits on AVX2.
 *
 * Signed bytes: vpmaddubsw wants an unsigned operand, so |x| w' with w' = w ^ s, s = -1 where x < 0, else 0:
 * w ^ -1 = -w - 1, hence |x| w' = x w - |x| where x < 0. The sum of these |x| is the same for all rows: the
 * correction. Pairs fit int16: 128 * -128 * 2 = -2^15, 127 * 127 * 2 < 2^15.
 *
 * Two vectors of columns are added as int16 before they are widened, if the four |x| that meet in a sum are at most
 * 256 together: 256 * -128 = -2^15, 256 * 127 < 2^15. Where they are more, the second vector is set aside, and multiplied alone. */
#include "fast_avx2_panels.h"

#ifdef __AVX2__

/* What is set aside of x: a vector of columns, its |x| and s. */
typedef struct {
    uint32_t vector, size, sign;
} aside;

/* Behind prepared x, with `count` of them. */
typedef struct {
    uint32_t count;
    int alone; /* none are set aside, for they would be too many: every vector is to be widened alone */
    aside list[1];
} asides;

/* Columns of which one vector may be set aside: with more of them it takes longer than to widen all alone. */
enum { COLUMNS_AN_ASIDE = 128 };

MF_INLINE size_t prepared_end(size_t vectors) { return 2 * mf_round_up(4 * vectors, 32); }

MF_INLINE asides *asides_at(uint8_t *prepared, size_t vectors) {
    return (asides *)(void *)(prepared + prepared_end(vectors));
}

/* All ones in the first quarter of every eight columns whose two vectors may not be added as int16. */
MF_INLINE __m256i too_large(__m256i size) {
    const __m256i twos = _mm256_maddubs_epi16(size, _mm256_set1_epi8(1));
    const __m256i fours = _mm256_add_epi16(twos, _mm256_srli_epi64(twos, 32));
    const __m256i large = _mm256_cmpgt_epi16(fours, _mm256_set1_epi16(256));
    return _mm256_and_si256(large, _mm256_set1_epi64x(0xFFFFFFFF));
}

/* Sets aside what is too large of 32 columns from vector `first` on; `large` has their bytes. */
static void set_aside(uint8_t *prepared, asides *held, size_t first, size_t most, uint32_t large) {
    for (size_t v = first + 1; large && !held->alone; v += 2, large >>= 8) {
        if (large & 255) {
            aside *one = held->list + held->count++;
            one->vector = (uint32_t)v;
            memcpy(&one->size, prepared + v * 8, 8);
            memset(prepared + v * 8, 0, 8);
            held->alone = held->count > most;
        }
    }
    for (; held->alone && held->count; held->count--) {
        const aside *one = held->list + held->count - 1;
        memcpy(prepared + (size_t)one->vector * 8, &one->size, 8);
    }
}

int32_t mf_avx2_prepare_codes(const mf_packed *p, const int16_t *x, uint8_t *prepared) {
    const size_t columns = p->columns, most = columns / COLUMNS_AN_ASIDE;
    asides *held = asides_at(prepared, p->vectors);
    __m256i negative = _mm256_setzero_si256();
    held->count = 0;
    held->alone = 0;
    for (size_t j = 0; j < columns; j += 32) {
        const __m256i v = bytes_from(x + j, columns - j);
        const __m256i large = too_large(put_signed(v, prepared + 2 * j, &negative));
        if (!_mm256_testz_si256(large, large)) {
            set_aside(prepared, held, j / 4, most, (uint32_t)_mm256_movemask_epi8(large));
        }
    }
    return sum_of_eight(negative);
}

/* Sixteen differences and their sizes. */
typedef struct {
    __m256i v, size;
} differences;

/* Of those that are left; `over`: all ones where those of a pair are limited, else as it was. */
MF_INLINE differences limited_from(const int32_t *delta, size_t left, __m256i *over) {
    const __m256i low = eight_from(delta, left), high = eight_from(delta + 8, left < 8 ? 0 : left - 8);
    const __m256i some = _mm256_packs_epi32(low, high);
    const __m256i v = _mm256_permute4x64_epi64(some, 0xD8), size = _mm256_abs_epi16(v);
    const __m256i pair = _mm256_madd_epi16(size, _mm256_set1_epi16(1));
    const __m256i large = _mm256_cmpgt_epi32(pair, _mm256_set1_epi32(MF_LARGEST_PAIR));
    const __m256i least = _mm256_min_epi16(size, _mm256_set1_epi16(MF_LARGEST_SIZE));
    const differences made = {v, _mm256_blendv_epi8(size, least, large)};
    *over = _mm256_or_si256(*over, large);
    return made;
}

size_t mf_avx2_prepare_differences(const mf_packed *p, const int32_t *delta, uint8_t *prepared,
                                   int32_t *correction, uint32_t *limited) {
    const size_t columns = p->columns, most = columns / COLUMNS_AN_ASIDE;
    asides *held = asides_at(prepared, p->vectors);
    __m256i negative = _mm256_setzero_si256();
    size_t groups = 0;
    held->count = 0;
    held->alone = 0;
    for (size_t j = 0; j < columns; j += MF_DIFFERENCES) {
        const size_t left = columns - j;
        __m256i over = _mm256_setzero_si256();
        const differences a = limited_from(delta + j, left, &over);
        const differences b = limited_from(delta + j + 16, left < 16 ? 0 : left - 16, &over);
        const __m256i sizes = _mm256_packus_epi16(a.size, b.size);
        const __m256i signs = _mm256_srai_epi16(a.v, 15), behind = _mm256_srai_epi16(b.v, 15);
        const __m256i size = _mm256_permute4x64_epi64(sizes, 0xD8);
        put_sizes(size, _mm256_permute4x64_epi64(_mm256_packs_epi16(signs, behind), 0xD8),
                  prepared + 2 * j, &negative);
        const __m256i large = too_large(size);
        if (!_mm256_testz_si256(large, large)) {
            set_aside(prepared, held, j / 4, most, (uint32_t)_mm256_movemask_epi8(large));
        }
        limited[groups] = (uint32_t)(j / MF_DIFFERENCES);
        groups += !_mm256_testz_si256(over, over);
    }
    *correction = sum_of_eight(negative);
    return groups;
}

/* The tile t of a vector of columns. */
MF_INLINE const uint8_t *tile_at(mf_panels at, size_t vector, int t, int tiles) {
    const size_t wide = tiles < MF_PANEL_TILES ? (size_t)tiles : MF_PANEL_TILES;
    const size_t behind = t < MF_PANEL_TILES ? 0 : at.vectors * 32 * MF_PANEL_TILES;
    return at.w + behind + (vector * wide + (size_t)t % MF_PANEL_TILES) * 32;
}

/* Adds to the totals of a step the products with `count` vectors of columns, one or two. */
MF_INLINE void add_vectors(mf_panels at, size_t vector, const uint8_t *x, __m256i *total, int count,
                           int tiles, int steps) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i size[2], sign[2];
    MF_UNROLL
    for (int k = 0; k < count; k++) {
        size[k] = in_order(broadcast_32(x + 8 * k));
        sign[k] = in_order(broadcast_32(x + 8 * k + 4));
    }
    MF_UNROLL
    for (int t = 0; t < tiles; t++) {
        __m256i sum = _mm256_setzero_si256();
        MF_UNROLL
        for (int k = 0; k < count; k++) {
            const __m256i code = load(tile_at(at, vector + (size_t)k, t, tiles));
            const __m256i add = _mm256_maddubs_epi16(size[k], _mm256_xor_si256(code, sign[k]));
            sum = k ? _mm256_add_epi16(sum, add) : add;
        }
        sum = _mm256_add_epi32(total[t * steps], _mm256_madd_epi16(sum, ones));
        total[t * steps] = in_order(sum);
    }
}

/* Two vectors of columns for all steps, or one. */
MF_INLINE void add_steps(mf_panels at, size_t vector, __m256i *total, int count, int tiles, int steps) {
    const uint8_t *x = at.x + vector * 8;
    MF_UNROLL
    for (int i = 0; i < tiles; i++) { /* the caches' own are too late */
        const int first = i / MF_PANEL_TILES * MF_PANEL_TILES;
        if (i - first < 2 * count) {
            prefetch(tile_at(at, vector, first, tiles) + AHEAD + (i - first) * 64);
        }
    }
    MF_UNROLL
    for (int s = 0; s < steps; s++) {
        add_vectors(at, vector, x + (size_t)s * at.stride, total + s, count, tiles, steps);
    }
}

MF_INLINE void panels(mf_panels at, __m256i *sum, int tiles, int steps) {
    const asides *held[2];
    __m256i total[8];
    MF_UNROLL
    for (int s = 0; s < steps; s++) {
        held[s] = (const asides *)(const void *)(at.x + (size_t)s * at.stride + prepared_end(at.vectors));
    }
    MF_UNROLL
    for (int i = 0; i < tiles * steps; i++) {
        total[i] = in_order(_mm256_setzero_si256());
    }
    size_t k = 0;
    if (!held[0]->alone && !held[steps - 1]->alone) {
        for (; k + 2 <= at.vectors; k += 2) {
            add_steps(at, k, total, 2, tiles, steps);
        }
    }
    for (; k < at.vectors; k++) {
        add_steps(at, k, total, 1, tiles, steps);
    }
    MF_UNROLL
    for (int s = 0; s < steps; s++) {
        for (uint32_t i = 0; i < held[s]->count; i++) {
            const aside *one = held[s]->list + i;
            add_vectors(at, one->vector, (const uint8_t *)&one->size, total + s, 1, tiles, steps);
        }
    }
    MF_UNROLL
    for (int i = 0; i < tiles * steps; i++) {
        sum[i] = total[i];
    }
}

void mf_avx2_codes_8(const mf_packed *p, const mf_steps *steps) {
    each_panel(p, steps, panels, 2 * MF_PANEL_TILES, 0);
}

#endif
