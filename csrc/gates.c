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
