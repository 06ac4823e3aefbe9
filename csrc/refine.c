#include "refine.h"

#include "elementwise.h"

mf_refine_budget mf_refine_share(const mf_budget *b, uint32_t number, uint32_t terms, uint32_t share) {
    mf_refine_budget made = {terms, 0, NULL, NULL, 0};
    if (!b) {
        return made;
    }
    if (b->limits && b->limits[number] < terms) {
        made.limit = b->limits[number];
    }
    made.clock = b->clock;
    made.context = b->context;
    if (b->clock) {
        const uint64_t reserve = b->reserves ? b->reserves[number] : 0;
        made.deadline = b->deadline > reserve ? b->deadline - reserve : 0;
        if (share < MF_WHOLE) {
            const uint64_t now = b->clock(b->context);
            const uint64_t left = made.deadline > now ? made.deadline - now : 0;
            const uint64_t later = (left / MF_WHOLE) * (MF_WHOLE - share) +
                                   (left % MF_WHOLE) * (MF_WHOLE - share) / MF_WHOLE;
            made.deadline -= later;
        }
    }
    return made;
}

/* A row of v times x. */
static float dot(const mf_terms *t, size_t row, const float *x) {
    const size_t n = (size_t)t->kept * t->width;
    const float *v = t->v + row * n;
    float sums[8] = {t->c ? t->c[row] : 0.0f};
    if (!t->index) {
        for (size_t i = 0; i < n; i++) {
            sums[i % 8] += v[i] * x[i];
        }
    } else {
        const uint32_t *index = t->index + row * t->kept;
        for (size_t i = 0, k = 0; k < t->kept; k++) {
            const float *seen = x + (size_t)index[k] * t->width;
            for (uint32_t j = 0; j < t->width; j++, i++) {
                sums[i % 8] += v[i] * seen[j];
            }
        }
    }
    for (int half = 4; half; half /= 2) {
        for (int i = 0; i < half; i++) {
            sums[i] += sums[i + half];
        }
    }
    return sums[0];
}

void mf_refine_f32(const mf_terms *t, const float *x, const float *bias, float *y,
                   mf_refine_budget *b) {
    const uint32_t together = t->rows / t->groups;
    for (uint32_t r = 0; r < t->rows; r++) {
        y[r] = bias ? bias[r] : 0.0f;
    }
    for (b->used = 0; mf_may_refine(b); b->used++) {
        const size_t first = (size_t)b->used * t->groups;
        const float *u = t->u + (size_t)b->used * t->rows;
        for (uint32_t g = 0, r = 0; g < t->groups; g++) {
            const float by = dot(t, first + g, x);
            for (uint32_t end = r + together; r < end; r++) {
                y[r] += u[r] * by;
            }
        }
    }
}

/* The code that stands for row `row` of v times x. */
static int16_t code_of(const mf_stored_terms *t, uint32_t row, const int16_t *x) {
    const int64_t c = t->c_i32 ? t->c_i32[row] : t->c_i64 ? t->c_i64[row] : 0;
    const int64_t sum = c + mf_row_i64(t->v, row, x);
    int32_t fx;
    int16_t code;
    mf_rescale_i64(&sum, 1, 1, t->mu + row / (t->v->out / t->mu_count), 1, t->shift, &fx);
    mf_quantize(&fx, 1, t->code_mu, t->code_shift, t->code_bits, &code);
    return code;
}

#define MF_REFINE(width, type)                                                                     \
    void mf_refine_##width(const mf_stored_terms *t, const int16_t *x, const type *bias,           \
                           type *acc, mf_refine_budget *b) {                                       \
        const uint32_t rows = t->u->out, together = rows / t->groups;                              \
        for (uint32_t r = 0; r < rows; r++) {                                                      \
            acc[r] = bias ? bias[r] : 0;                                                           \
        }                                                                                          \
        for (b->used = 0; mf_may_refine(b); b->used++) {                                           \
            for (uint32_t g = 0; g < t->groups; g++) {                                             \
                const int16_t code = code_of(t, b->used * t->groups + g, x);                       \
                mf_add_column_##width(t->u, b->used, code, g * together, (g + 1) * together, acc); \
            }                                                                                      \
        }                                                                                          \
    }

MF_REFINE(i32, int32_t)
MF_REFINE(i64, int64_t)
