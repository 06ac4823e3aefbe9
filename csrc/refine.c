#include "refine.h"

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
        share = b->shares ? b->shares[number] : share;
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

void mf_refine_within_f32(const mf_terms *t, const float *x, const float *bias, float *y,
                          const mf_budget *b, uint32_t number, uint32_t share) {
    mf_refine_budget own = mf_refine_share(b, number, t->terms, share);
    mf_refine_f32(t, x, bias, y, &own);
    mf_refine_used(b, number, &own);
}
