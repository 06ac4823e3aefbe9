/* Elementwise parts of LSTM and GRU steps as one call each: from the sums of the products to the new state. */
#ifndef MODELFLEX_GATES_H
#define MODELFLEX_GATES_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { MF_RISES = 256, MF_MAX_GATES = 4 };

/* One product's sums, [gates][units] in any order of the gates: those of gate k begin at at[k]. Each has its mu. */
typedef struct {
    const int32_t *mu;
    size_t at[MF_MAX_GATES];
    int shift; /* 1 ... 32 */
    int left;  /* where sums are bounded: they may be shifted to the left by so much, and 17 <= shift + left <= 32 */
} mf_gate_sums;

/* Gates in the order i, f, g, o (LSTM) or r, z, n (GRU). */
typedef struct {
    size_t units;
    mf_gate_sums x, h;
    const int32_t *table; /* of tanh */
    const int32_t *rises; /* the same, by mf_make_rises() */
    int bounded;          /* all sums are proven to stay below 2^30 after rescaling and below 2^(31 - left) before */
} mf_gates;

/* Entry i of `rises`: entry i of the table of tanh in the upper 16 bits, what entry i + 1 adds in the lower. Returns
 * whether the table allows it: from 0, all below 2^15. */
int mf_make_rises(const int32_t *table, int32_t *rises);

/* Where sums are below `bound`: the fields `left` and `bounded`. */
void mf_bound_gates(mf_gates *g, uint64_t x_bound, uint64_t h_bound);

/* What rescale, add, sigmoid, tanh, mul and sub make of the sums x and h:
 *   LSTM: next = sat(sigmoid(f) old + sigmoid(i) tanh(g)); out = sigmoid(o) tanh(next);
 *   GRU:  n = tanh(sat(x_n + sigmoid(r) h_n)); out = sat(n + sigmoid(z) sat(old - n)), where gates are sat(x + h).
 * `next` of LSTM and `out` of GRU may be `old`. */
typedef void mf_lstm_kernel(const mf_gates *g, const int32_t *x, const int32_t *h,
                            const int32_t *old, int32_t *next, int32_t *out);
typedef void mf_gru_kernel(const mf_gates *g, const int32_t *x, const int32_t *h,
                           const int32_t *old, int32_t *out);

/* The kernels of reference. */
mf_lstm_kernel mf_lstm;
mf_gru_kernel mf_gru;

/* The gates of the units from `first` on, for sums from there on: what fills no vector. */
mf_gates mf_gates_from(const mf_gates *g, size_t first);

#ifdef __cplusplus
}
#endif

#endif
