#include "gates.h"

#include "fixed_point.h"

int mf_make_rises(const int32_t *table, int32_t *rises) {
    int fits = table[0] == 0;
    for (int i = 0; i < MF_TANH_ENTRIES; i++) {
        fits = fits && table[i] >= 0 && table[i] < 1 << 15;
    }
    for (int i = 0; i < MF_RISES && fits; i++) {
        const uint32_t rise = (uint32_t)(table[i + 1] - table[i]) & 0xFFFFu;
        rises[i] = (int32_t)((uint32_t)table[i] << 16 | rise);
    }
    return fits;
}

static int bound(mf_gate_sums *s, uint64_t sums) {
    s->left = s->shift < 17 ? 17 - s->shift : 0;
    return sums < UINT64_C(1) << (31 - s->left) && (sums << 15) >> s->shift < (1 << 30) - 1;
}

void mf_bound_gates(mf_gates *g, uint64_t x_bound, uint64_t h_bound) {
    const int x = bound(&g->x, x_bound), h = bound(&g->h, h_bound);
    g->bounded = x && h;
}

mf_gates mf_gates_from(const mf_gates *g, size_t first) {
    mf_gates rest = *g;
    rest.units -= first;
    for (int k = 0; k < MF_MAX_GATES; k++) {
        rest.x.at[k] += first;
        rest.h.at[k] += first;
    }
    return rest;
}

static int32_t fx_of(const mf_gate_sums *s, const int32_t *sums, size_t gate, size_t unit) {
    const size_t i = s->at[gate] + unit;
    return mf_sat32(mf_rsh(mf_mul_wrap(sums[i], s->mu[i]), mf_make_shift(s->shift)));
}

static int32_t gate_of(const mf_gates *g, const int32_t *x, const int32_t *h, size_t gate,
                       size_t unit) {
    return mf_add_sat(fx_of(&g->x, x, gate, unit), fx_of(&g->h, h, gate, unit));
}

void mf_lstm(const mf_gates *g, const int32_t *x, const int32_t *h, const int32_t *old,
             int32_t *next, int32_t *out) {
    enum { I, F, G, O };
    for (size_t k = 0; k < g->units; k++) {
        const int32_t in = mf_sigmoid(gate_of(g, x, h, I, k), g->table);
        const int32_t forget = mf_sigmoid(gate_of(g, x, h, F, k), g->table);
        const int32_t fresh = mf_tanh(gate_of(g, x, h, G, k), g->table);
        const int32_t open = mf_sigmoid(gate_of(g, x, h, O, k), g->table);
        next[k] = mf_add_sat(mf_mul_sat(forget, old[k]), mf_mul_sat(in, fresh));
        out[k] = mf_mul_sat(open, mf_tanh(next[k], g->table));
    }
}

void mf_gru(const mf_gates *g, const int32_t *x, const int32_t *h, const int32_t *old,
            int32_t *out) {
    enum { R, Z, N };
    for (size_t k = 0; k < g->units; k++) {
        const int32_t reset = mf_sigmoid(gate_of(g, x, h, R, k), g->table);
        const int32_t keep = mf_sigmoid(gate_of(g, x, h, Z, k), g->table);
        const int32_t carried = mf_mul_sat(reset, fx_of(&g->h, h, N, k));
        const int32_t fresh = mf_tanh(mf_add_sat(fx_of(&g->x, x, N, k), carried), g->table);
        out[k] = mf_add_sat(fresh, mf_mul_sat(keep, mf_sub_sat(old[k], fresh)));
    }
}
