#include "plan.h"

#include <string.h>

#include "elementwise.h"
#include "elementwise_f32.h"
#include "packed.h"

static inline uint8_t *place(const mf_run *run, mf_place p, size_t row) {
    return run->memory + p.offset + row * p.stride;
}

/* --- calls --------------------------------------------------------------------------------------- */
typedef void (*unary_kernel)(const int32_t *, size_t, int32_t *);
typedef void (*binary_kernel)(const int32_t *, const int32_t *, size_t, int32_t *);
typedef void (*lookup_kernel)(const int32_t *, size_t, const int32_t *, int32_t *);
typedef void (*float_unary_kernel)(const float *, size_t, float *);
typedef void (*float_binary_kernel)(const float *, const float *, size_t, float *);

/* Rows that follow each other are one long row. */
#define MF_EACH_ROW(c, n, row, first, rows)                                                        \
    const size_t n = (c)->joined ? (c)->size * (rows) : (c)->size;                                 \
    const size_t row##_end = (c)->joined ? (first) + 1 : (first) + (rows);                         \
    for (size_t row = (first); row < row##_end; row++)

static void call_unary(const mf_call *c, const mf_run *run, size_t first, size_t rows, unary_kernel f) {
    MF_EACH_ROW(c, n, i, first, rows) {
        f((const int32_t *)place(run, c->in[0], i), n, (int32_t *)place(run, c->out[0], i));
    }
}

static void call_binary(const mf_call *c, const mf_run *run, size_t first, size_t rows, binary_kernel f) {
    MF_EACH_ROW(c, n, i, first, rows) {
        f((const int32_t *)place(run, c->in[0], i), (const int32_t *)place(run, c->in[1], i), n,
          (int32_t *)place(run, c->out[0], i));
    }
}

static void call_lookup(const mf_call *c, const mf_run *run, size_t first, size_t rows, lookup_kernel f) {
    MF_EACH_ROW(c, n, i, first, rows) {
        f((const int32_t *)place(run, c->in[0], i), n, c->constants,
          (int32_t *)place(run, c->out[0], i));
    }
}

static void call_float_unary(const mf_call *c, const mf_run *run, size_t first, size_t rows,
                             float_unary_kernel f) {
    MF_EACH_ROW(c, n, i, first, rows) {
        f((const float *)place(run, c->in[0], i), n, (float *)place(run, c->out[0], i));
    }
}

static void call_float_binary(const mf_call *c, const mf_run *run, size_t first, size_t rows,
                              float_binary_kernel f) {
    MF_EACH_ROW(c, n, i, first, rows) {
        f((const float *)place(run, c->in[0], i), (const float *)place(run, c->in[1], i), n,
          (float *)place(run, c->out[0], i));
    }
}

static void call_piecewise(const mf_call *c, const mf_run *run, size_t first, size_t rows,
                           const mf_elementwise *e) {
    MF_EACH_ROW(c, n, i, first, rows) {
        e->piecewise((const int32_t *)place(run, c->in[0], i), n, &c->table,
                     (int32_t *)place(run, c->out[0], i));
    }
}

static void call_quantize(const mf_call *c, const mf_run *run, size_t first, size_t rows,
                          const mf_elementwise *e) {
    MF_EACH_ROW(c, n, i, first, rows) {
        e->quantize((const int32_t *)place(run, c->in[0], i), n, c->mu, c->shift, c->bits,
                    (int16_t *)place(run, c->out[0], i));
    }
}

static void call_rescale(const mf_call *c, const mf_run *run, size_t first, size_t rows,
                         const mf_elementwise *e) {
    const size_t together = c->joined ? rows : 1;
    for (size_t i = first; i < first + rows; i += together) {
        const void *acc = place(run, c->in[0], i);
        int32_t *fx = (int32_t *)place(run, c->out[0], i);
        if (c->kernel == MF_RESCALE_I32) {
            e->rescale_i32((const int32_t *)acc, together, c->size, c->constants,
                           c->constant_count, c->shift, fx);
        } else {
            e->rescale_i64((const int64_t *)acc, together, c->size, c->constants,
                           c->constant_count, c->shift, fx);
        }
    }
}

static void call_delta_encode(const mf_call *c, const mf_run *run, size_t first, size_t rows,
                              const mf_elementwise *e) {
    const size_t together = c->joined ? rows : 1;
    for (size_t i = first; i < first + rows; i += together) {
        e->delta_encode((const int16_t *)place(run, c->in[0], i),
                        (const int16_t *)place(run, c->in[1], i), together, c->size,
                        (size_t)c->block, c->constants, c->overshoot, c->bits,
                        (int32_t *)place(run, c->out[0], i), place(run, c->out[1], i),
                        (int16_t *)place(run, c->out[2], i));
    }
}

static void call_one_hot(const mf_call *c, const mf_run *run, size_t first, size_t rows) {
    for (size_t i = first; i < first + rows; i++) {
        const void *x = place(run, c->in[0], i);
        void *out = place(run, c->out[0], i);
        if (c->kernel == MF_ONE_HOT) {
            mf_one_hot(*(const int32_t *)x, c->size, (int32_t *)out);
        } else {
            mf_one_hot_f32(*(const float *)x, c->size, (float *)out);
        }
    }
}

static void call_copy(const mf_call *c, const mf_run *run, size_t first, size_t rows) {
    for (size_t i = first; i < first + rows; i++) {
        memcpy(place(run, c->out[0], i), place(run, c->in[0], i), (size_t)c->size * c->item_bytes);
    }
}

static void call_gates(const mf_call *c, const mf_run *run, size_t first, size_t rows,
                       const mf_elementwise *e) {
    for (size_t i = first; i < first + rows; i++) {
        const int32_t *x = (const int32_t *)place(run, c->in[0], i);
        const int32_t *h = (const int32_t *)place(run, c->in[1], i);
        const int32_t *old = (const int32_t *)place(run, c->in[2], i);
        int32_t *next = (int32_t *)place(run, c->out[0], i);
        if (c->kernel == MF_LSTM) {
            e->lstm(c->gates, x, h, old, next, (int32_t *)place(run, c->out[1], i));
        } else {
            e->gru(c->gates, x, h, old, next);
        }
    }
}

static void call_kernel(const mf_call *c, const mf_run *run, size_t first, size_t rows,
                        const mf_elementwise *e) {
    switch (c->kernel) {
    case MF_QUANTIZE: call_quantize(c, run, first, rows, e); break;
    case MF_LINEAR_I32:
    case MF_LINEAR_I64: mf_product_linear(c, run, first, rows); break;
    case MF_LINEAR_F32: mf_product_linear_f32(c, run, first, rows); break;
    case MF_DELTA_ENCODE: call_delta_encode(c, run, first, rows, e); break;
    case MF_ACCUMULATE_I32:
    case MF_ACCUMULATE_I64: mf_product_accumulate(c, run, first, rows); break;
    case MF_RESCALE_I32:
    case MF_RESCALE_I64: call_rescale(c, run, first, rows, e); break;
    case MF_ADD: call_binary(c, run, first, rows, e->add); break;
    case MF_SUB: call_binary(c, run, first, rows, e->sub); break;
    case MF_MUL: call_binary(c, run, first, rows, e->mul); break;
    case MF_SIGMOID: call_lookup(c, run, first, rows, e->sigmoid); break;
    case MF_TANH: call_lookup(c, run, first, rows, e->tanh); break;
    case MF_PIECEWISE: call_piecewise(c, run, first, rows, e); break;
    case MF_RELU: call_unary(c, run, first, rows, mf_relu); break;
    case MF_ADD_F32: call_float_binary(c, run, first, rows, e->add_f32); break;
    case MF_SUB_F32: call_float_binary(c, run, first, rows, e->sub_f32); break;
    case MF_MUL_F32: call_float_binary(c, run, first, rows, e->mul_f32); break;
    case MF_SIGMOID_F32: call_float_unary(c, run, first, rows, e->sigmoid_f32); break;
    case MF_TANH_F32: call_float_unary(c, run, first, rows, e->tanh_f32); break;
    case MF_RELU_F32: call_float_unary(c, run, first, rows, mf_relu_f32); break;
    case MF_ONE_HOT:
    case MF_ONE_HOT_F32: call_one_hot(c, run, first, rows); break;
    case MF_COPY: call_copy(c, run, first, rows); break;
    case MF_REFINE_I32:
    case MF_REFINE_I64:
    case MF_REFINE_F32: mf_product_refine(c, run, first, rows, e); break;
    case MF_LSTM:
    case MF_GRU: call_gates(c, run, first, rows, e); break;
    }
}

static void trace_codes(const mf_call *c, const mf_run *run, size_t first, size_t rows) {
    const int delta = c->kernel == MF_DELTA_ENCODE;
    if (!delta && c->kernel != MF_LINEAR_I32 && c->kernel != MF_LINEAR_I64) {
        return;
    }
    const mf_place from = delta ? c->out[2] : c->in[0];
    for (size_t i = first; i < first + rows; i++) {
        memcpy(run->trace->codes[c->site] + run->trace->rows[i] * c->in_size, place(run, from, i),
               c->in_size * sizeof(int16_t));
    }
}

void mf_reset_stage(const mf_stage *stage, uint8_t *memory, size_t first, size_t rows) {
    for (const mf_slot *s = stage->slots; s < stage->slots + stage->slot_count; s++) {
        for (size_t i = first; i < first + rows; i++) {
            uint8_t *at = memory + s->place.offset + i * s->place.stride;
            if (s->init) {
                memcpy(at, s->init, s->bytes);
            } else {
                memset(at, 0, s->bytes);
            }
        }
    }
}

void mf_run_stage(const mf_stage *stage, const mf_run *run, size_t first, size_t rows) {
    const mf_elementwise *e = stage->kernels;
    const mf_call *ahead_end = stage->calls + stage->ahead, *end = ahead_end + stage->step;
    if (stage->once) {
        mf_reset_stage(stage, run->memory, first, rows);
    }
    for (const mf_call *c = stage->calls; c < ahead_end; c++) {
        call_kernel(c, run, first, rows, e);
        if (run->trace) {
            trace_codes(c, run, first, rows);
        }
    }
    for (size_t i = first; i < first + rows; i++) {
        for (const mf_call *c = ahead_end; c < end; c++) {
            call_kernel(c, run, i, 1, e);
            if (run->trace) {
                trace_codes(c, run, i, 1);
            }
        }
    }
}

/* --- the ends ------------------------------------------------------------------------------------ */
/* x * 2^16 rounded to the nearest integer, ties to even: adding 1.5 * 2^52 leaves no fractional bits. NaN, which
 * another thread may write after x was checked, is the least integer. */
static inline int32_t as_fx(double x) {
    const double magic = 6755399441055744.0;
    double v = x * 65536.0;
    v = v > -2147483648.0 ? v : -2147483648.0;
    v = v < 2147483647.0 ? v : 2147483647.0;
    return (int32_t)((v + magic) - magic);
}

/* x - x is 0 for finite numbers only. */
#define MF_FINITE(name, type)                                                                      \
    int name(const type *x, size_t n) {                                                            \
        int finite = 1;                                                                            \
        for (size_t i = 0; i < n; i++) {                                                           \
            finite &= x[i] - x[i] == 0;                                                            \
        }                                                                                          \
        return finite;                                                                             \
    }

MF_FINITE(mf_finite_f32, float)
MF_FINITE(mf_finite_f64, double)

#define MF_ENTER(name, from, to, convert)                                                          \
    void name(const from *x, size_t n, to *y) {                                                    \
        for (size_t i = 0; i < n; i++) {                                                           \
            y[i] = convert(x[i]);                                                                  \
        }                                                                                          \
    }

MF_ENTER(mf_enter_fx_f32, float, int32_t, as_fx)
MF_ENTER(mf_enter_fx_f64, double, int32_t, as_fx)
MF_ENTER(mf_enter_f32_f64, double, float, (float))

#define MF_LEAVE(name, from, to, factor)                                                           \
    void name(const from *x, size_t n, to *y) {                                                    \
        for (size_t i = 0; i < n; i++) {                                                           \
            y[i] = (to)x[i] * (to)(factor);                                                        \
        }                                                                                          \
    }

MF_LEAVE(mf_leave_fx_f32, int32_t, float, 1.0 / 65536.0)
MF_LEAVE(mf_leave_fx_f64, int32_t, double, 1.0 / 65536.0)
MF_LEAVE(mf_leave_f32_f64, float, double, 1.0)
