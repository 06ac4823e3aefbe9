/* Progressive products of floats on AVX2 with FMA (refine.h). */
#include "fast_avx2.h"
#include "refine.h"

#ifdef __AVX2__

enum { TOGETHER = 4 }; /* rows of v that share the reading of x */

MF_INLINE float sum_of_eight(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/* Columns from ... to - 1 of dense rows of v, n numbers each, times x: one row has four sums under way, several have
 * two each. */
enum { WAYS = 4 };
MF_INLINE void dense_part(const float *v, size_t n, size_t rows, size_t ways, const float *x, size_t from,
                          size_t to, __m256 sum[TOGETHER][WAYS]) {
    const size_t step = 8 * ways;
    size_t j = from;
    for (; j + step <= to; j += step) {
#pragma GCC unroll 4
        for (size_t w = 0; w < ways; w++) {
            const __m256 seen = _mm256_loadu_ps(x + j + 8 * w);
#pragma GCC unroll 4
            for (size_t r = 0; r < rows; r++) {
                sum[r][w] = _mm256_fmadd_ps(_mm256_loadu_ps(v + r * n + j + 8 * w), seen, sum[r][w]);
            }
        }
    }
    for (; j < to; j += 8) {
        const __m256i keep = first_lanes(to - j);
        const __m256 seen = _mm256_maskload_ps(x + j, keep);
#pragma GCC unroll 4
        for (size_t r = 0; r < rows; r++) {
            sum[r][0] = _mm256_fmadd_ps(_mm256_maskload_ps(v + r * n + j, keep), seen, sum[r][0]);
        }
    }
}

MF_INLINE void dense(const float *v, size_t n, size_t rows, const mf_halves *x, float *found) {
    const size_t ways = rows == 1 ? 4 : 2, split = x->split < n ? x->split : n;
    __m256 sum[TOGETHER][WAYS];
#pragma GCC unroll 4
    for (size_t r = 0; r < rows; r++) {
#pragma GCC unroll 4
        for (size_t w = 0; w < ways; w++) {
            sum[r][w] = _mm256_setzero_ps();
        }
    }
    dense_part(v, n, rows, ways, x->head, 0, split, sum);
    dense_part(v, n, rows, ways, x->rest, split, n, sum);
#pragma GCC unroll 4
    for (size_t r = 0; r < rows; r++) {
        __m256 all = _mm256_add_ps(sum[r][0], sum[r][1]);
        if (ways == 4) {
            all = _mm256_add_ps(all, _mm256_add_ps(sum[r][2], sum[r][3]));
        }
        found[r] = sum_of_eight(all);
    }
}

/* How many of a row's ascending places are below `end`: all but few are. */
MF_INLINE size_t places_below(const uint32_t *index, size_t kept, uint32_t end) {
    while (kept && index[kept - 1] >= end) {
        kept--;
    }
    return kept;
}

/* A row of blocks of 8. */
MF_INLINE float blocks(const float *v, const uint32_t *index, size_t kept, const mf_halves *x) {
    __m256 sum[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
    __m256 last = _mm256_setzero_ps();
    const size_t near = places_below(index, kept, x->split / 8);
    const float *head = x->head;
    size_t k = 0;
    for (; k + 4 <= near; k += 4) {
#pragma GCC unroll 2
        for (size_t w = 0; w < 4; w += 2) {
            uint64_t two; /* places, read at once: this loop is bound by how much it reads */
            memcpy(&two, index + k + w, sizeof two);
            const __m256 first = _mm256_loadu_ps(head + 8 * (two & UINT32_MAX));
            const __m256 second = _mm256_loadu_ps(head + 8 * (two >> 32));
            sum[w] = _mm256_fmadd_ps(_mm256_loadu_ps(v + 8 * (k + w)), first, sum[w]);
            sum[w + 1] = _mm256_fmadd_ps(_mm256_loadu_ps(v + 8 * (k + w) + 8), second, sum[w + 1]);
        }
    }
    for (; k < kept; k++) {
        const __m256 seen = _mm256_loadu_ps((k < near ? head : x->rest) + 8 * (size_t)index[k]);
        last = _mm256_fmadd_ps(_mm256_loadu_ps(v + 8 * k), seen, last);
    }
    last = _mm256_add_ps(last, _mm256_add_ps(sum[0], sum[1]));
    return sum_of_eight(_mm256_add_ps(last, _mm256_add_ps(sum[2], sum[3])));
}

/* A row of single numbers. */
MF_INLINE float singles(const float *v, const uint32_t *index, size_t kept, const mf_halves *x) {
    __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    const size_t near = places_below(index, kept, x->split);
    const float *head = x->head;
    size_t k = 0;
    for (; k + 16 <= near; k += 16) {
#pragma GCC unroll 2
        for (size_t w = 0; w < 2; w++) {
            const __m256 seen = _mm256_i32gather_ps(head, load(index + k + 8 * w), 4);
            sum[w] = _mm256_fmadd_ps(_mm256_loadu_ps(v + k + 8 * w), seen, sum[w]);
        }
    }
    float all = sum_of_eight(_mm256_add_ps(sum[0], sum[1]));
    for (; k < kept; k++) {
        all += v[k] * (k < near ? head : x->rest)[index[k]];
    }
    return all;
}

/* A row of blocks of any other width. */
MF_INLINE float others(const float *v, const uint32_t *index, size_t kept, size_t width, const mf_halves *x) {
    float sum = 0;
    for (size_t k = 0; k < kept; k++) {
        const size_t column = width * index[k];
        const float *seen = (column < x->split ? x->head : x->rest) + column;
        for (size_t j = 0; j < width; j++) {
            sum += v[k * width + j] * seen[j];
        }
    }
    return sum;
}

/* Some rows of v, at most TOGETHER, times x. */
MF_INLINE void multiply(const mf_terms *t, size_t first, size_t rows, const mf_halves *x, float *found) {
    const size_t n = (size_t)t->kept * t->width;
    const float *v = t->v + first * n;
    if (!t->index) {
        switch (rows) {
        case 4: dense(v, n, 4, x, found); break;
        case 3: dense(v, n, 3, x, found); break;
        case 2: dense(v, n, 2, x, found); break;
        default: dense(v, n, 1, x, found);
        }
        return;
    }
    const uint32_t *index = t->index + first * t->kept;
    for (size_t r = 0; r < rows; r++, v += n, index += t->kept) {
        found[r] = t->width == 8   ? blocks(v, index, t->kept, x)
                   : t->width == 1 ? singles(v, index, t->kept, x)
                                   : others(v, index, t->kept, t->width, x);
    }
}

/* y += the sum of some rows of u, each times a number, for n of their numbers; rows lie `next` apart. */
MF_INLINE void add(const float *u, size_t next, const float *by, size_t count, size_t n, float *y) {
    __m256 factor[TOGETHER];
#pragma GCC unroll 4
    for (size_t k = 0; k < count; k++) {
        factor[k] = _mm256_set1_ps(by[k]);
    }
    size_t r = 0;
    for (; r + 8 <= n; r += 8) {
        __m256 sum = _mm256_loadu_ps(y + r);
#pragma GCC unroll 4
        for (size_t k = 0; k < count; k++) {
            sum = _mm256_fmadd_ps(_mm256_loadu_ps(u + k * next + r), factor[k], sum);
        }
        _mm256_storeu_ps(y + r, sum);
    }
    for (; r < n; r++) {
        for (size_t k = 0; k < count; k++) {
            y[r] += u[k * next + r] * by[k];
        }
    }
}

/* Rows first ... first + count - 1 of v, and what they add to y. */
MF_INLINE void add_rows(const mf_terms *t, size_t first, size_t count, const mf_halves *x, float *y) {
    const size_t height = t->rows / t->groups;
    for (size_t i = 0, rows; i < count; i += rows) {
        float by[TOGETHER];
        rows = count - i < TOGETHER ? count - i : TOGETHER;
        multiply(t, first + i, rows, x, by);
        for (size_t r = 0; t->c && r < rows; r++) {
            by[r] += t->c[first + i + r];
        }
        if (t->groups == 1 && rows > 1) {
            const float *u = t->u + (first + i) * t->rows;
            switch (rows) {
            case 4: add(u, t->rows, by, 4, t->rows, y); break;
            case 3: add(u, t->rows, by, 3, t->rows, y); break;
            default: add(u, t->rows, by, 2, t->rows, y);
            }
            continue;
        }
        for (size_t r = 0; r < rows; r++) {
            const size_t row = first + i + r, term = row / t->groups, group = row % t->groups;
            add(t->u + term * t->rows + group * height, 0, by + r, 1, height, y + group * height);
        }
    }
}

void mf_avx2_refine_halves_f32(const mf_terms *t, const mf_halves *x, const float *bias, float *y,
                               mf_refine_budget *b) {
    if (bias) {
        memcpy(y, bias, t->rows * sizeof *y);
    } else {
        memset(y, 0, t->rows * sizeof *y);
    }
    if (!b->clock) {
        add_rows(t, 0, (size_t)b->limit * t->groups, x, y);
        b->used = b->limit;
        return;
    }
    for (b->used = 0; mf_may_refine(b); b->used++) {
        add_rows(t, (size_t)b->used * t->groups, t->groups, x, y);
    }
}

void mf_avx2_refine_f32(const mf_terms *t, const float *x, const float *bias, float *y,
                        mf_refine_budget *b) {
    const mf_halves whole = {x, x, t->inputs};
    mf_avx2_refine_halves_f32(t, &whole, bias, y, b);
}

#endif
