/* Random plans for fuzz_plan.c: calls in a block of memory with what they read, of which every operand lies where the
 * loader of plans would let it lie. */
#ifndef MODELFLEX_FUZZ_CASE_H
#define MODELFLEX_FUZZ_CASE_H

#include <stddef.h>
#include <stdint.h>

#include "plan.h"

enum { MOST_CALLS = 6, MOST_ROWS = 5, MOST_BYTES = 1 << 22 };

/* --- numbers: the same everywhere ---------------------------------------------------------------- */
void begin(uint64_t seed);
uint32_t below(uint32_t n);
int32_t between(int32_t low, int32_t high);
float random_float(void);
uint32_t divisor_of(uint32_t n);

/* Zeros on the boundary of a cache line. */
void *allocate(size_t bytes);

/* --- products ------------------------------------------------------------------------------------ */
typedef struct {
    mf_product product;
    void *bias, *packed, *floats;
    int32_t *taps;
    int x_bits, wide; /* codes of the input; int64 sums */
    uint32_t entering;
} made_product;

made_product random_codes(void);
made_product random_floats(void);

/* Packs for the instruction set that is chosen now. */
void pack(made_product *made);
void forget(made_product *made);

/* --- calls --------------------------------------------------------------------------------------- */
typedef struct {
    mf_call calls[MOST_CALLS];
    made_product products[MOST_CALLS];
    void *constants[MOST_CALLS][3];
    mf_counts counts[MOST_CALLS];
    uint8_t *memory; /* as it is before the run; `used` bytes */
    size_t used, rows;
} fuzz_case;

void random_call(fuzz_case *f, int number);

#endif
