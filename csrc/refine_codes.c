#include "refine_codes.h"

#include "elementwise.h"

int16_t mf_refine_code(const mf_stored_terms *t, uint32_t row, int64_t sum) {
    const int64_t whole = sum + (t->c_i32 ? t->c_i32[row] : t->c_i64 ? t->c_i64[row] : 0);
    int32_t fx;
    int16_t code;
    mf_rescale_i64(&whole, 1, 1, t->mu + row / (t->v->out / t->mu_count), 1, t->shift, &fx);
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
                const uint32_t row = b->used * t->groups + g;                                      \
                const int16_t code = mf_refine_code(t, row, mf_row_i64(t->v, row, x));             \
                mf_add_column_##width(t->u, b->used, code, g * together, (g + 1) * together, acc); \
            }                                                                                      \
        }                                                                                          \
    }                                                                                              \
    void mf_refine_within_##width(const mf_stored_terms *t, const int16_t *x, const type *bias,    \
                                  type *acc, const mf_budget *b, uint32_t number,                  \
                                  uint32_t share) {                                                \
        mf_refine_budget own = mf_refine_share(b, number, t->u->inputs, share);                    \
        mf_refine_##width(t, x, bias, acc, &own);                                                  \
        mf_refine_used(b, number, &own);                                                           \
    }

MF_REFINE(i32, int32_t)
MF_REFINE(i64, int64_t)
