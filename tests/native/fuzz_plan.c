/* Random calls and products through the executor of plans, under AddressSanitizer and UBSan (make native-test):
 * what the loader lets through stays in its memory, and every instruction set leaves the same bits there.
 *   fuzz_plan [cases] [first seed] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz_case.h"
#include "packed.h"
#include "plan.h"

/* The memory after a run of the calls, in a piece of its own that ends where the plan's does. */
static uint8_t *run_calls(fuzz_case *f, size_t count, size_t ahead) {
    size_t scratch = 0;
    uint8_t *memory = allocate(f->used);
    memcpy(memory, f->memory, f->used);
    for (size_t k = 0; k < count; k++) {
        if (f->calls[k].product) {
            pack(&f->products[k]);
            const size_t bytes = mf_product_scratch(&f->products[k].product);
            scratch = bytes > scratch ? bytes : scratch;
        }
    }
    const mf_stage stage = {f->calls, ahead, count - ahead, NULL, 0, 0, mf_elementwise_table()};
    mf_run run;
    memset(&run, 0, sizeof run);
    run.memory = memory;
    run.scratch = allocate(scratch);
    run.counts = below(2) ? f->counts : NULL;
    mf_run_stage(&stage, &run, 0, f->rows);
    free(run.scratch);
    return memory;
}

static int differs(const mf_call *c, const uint8_t *a, const uint8_t *b, size_t rows) {
    const int floats = c->kernel == MF_LINEAR_F32 || c->kernel == MF_REFINE_F32 || (c->kernel >= MF_ADD_F32 && c->kernel <= MF_TANH_F32);
    const size_t item = c->kernel == MF_LINEAR_I64 || c->kernel == MF_ACCUMULATE_I64 ? 8
                        : c->kernel == MF_COPY                                      ? c->item_bytes
                        : c->kernel == MF_QUANTIZE                                  ? 2
                                                                                    : 4;
    for (size_t row = 0; row < rows; row++) {
        const size_t at = c->out[0].offset + row * c->out[0].stride;
        if (!floats) {
            if (memcmp(a + at, b + at, c->size * item)) {
                return 1;
            }
            continue;
        }
        const float *x = (const float *)(const void *)(a + at), *y = (const float *)(const void *)(b + at);
        for (uint32_t i = 0; i < c->size; i++) {
            if (!(fabsf(x[i] - y[i]) <= 1e-5f * fmaxf(200.0f, fabsf(y[i])))) {
                return 1;
            }
        }
    }
    return 0;
}

static int run_case(uint64_t seed) {
    static uint8_t space[MOST_BYTES];
    static fuzz_case f;
    memset(&f, 0, sizeof f);
    begin(seed);
    f.memory = space;
    f.rows = 1 + below(MOST_ROWS);
    const size_t count = 1 + below(MOST_CALLS), ahead = below((uint32_t)count + 1);
    for (size_t k = 0; k < count; k++) {
        random_call(&f, (int)k);
    }
    mf_limit_isa("portable");
    uint8_t *wanted = run_calls(&f, count, ahead);
    mf_limit_isa(NULL);
    uint8_t *found = run_calls(&f, count, ahead);
    int failures = 0;
    for (size_t k = 0; k < count; k++) {
        if (differs(&f.calls[k], found, wanted, f.rows)) {
            const mf_product *p = f.calls[k].product;
            fprintf(stderr, "FAILED seed %llu, call %zu of kernel %d: %s differs from portable\n",
                    (unsigned long long)seed, k, (int)f.calls[k].kernel, mf_isa());
            if (p) {
                fprintf(stderr, "    layout %d grid %d bits %d x_bits %d taps %d by_columns %d\n",
                        p->matrix.layout, p->matrix.grid, p->matrix.bits, f.products[k].x_bits,
                        p->taps != NULL, p->matrix.by_columns);
            }
            failures++;
        }
        if (f.calls[k].product) {
            forget(&f.products[k]);
        }
        for (int i = 0; i < 3; i++) {
            free(f.constants[k][i]);
        }
    }
    memset(space, 0, f.used);
    free(wanted);
    free(found);
    return failures;
}

int main(int argc, char **argv) {
    const unsigned long cases = argc > 1 ? strtoul(argv[1], NULL, 10) : 2000;
    const unsigned long first = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
    int failures = 0;
    for (unsigned long i = 0; i < cases && failures < 20; i++) {
        failures += run_case(first + i);
    }
    printf("fuzz_plan: %lu random plans on %s, %d failures\n", cases, mf_isa(), failures);
    return failures != 0;
}
