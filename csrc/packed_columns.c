/* Accumulation of packed products: columns of the differences that are not 0, or the whole product. */
#include <string.h>

#include "packed.h"
#include "packed_kernels.h"

/* Differences of which columns are added one after another fit int8. */
enum { LARGEST_PART = 127 };

/* Adds columns one after another; a run is added when it is full. */
typedef struct {
    const mf_packed *p;
    int32_t *total;
    uint32_t entries, load;
    mf_column_run run;
} mf_runs;

static int32_t clamp(int32_t v, int32_t low, int32_t high) {
    return v < low ? low : v > high ? high : v;
}

static uint32_t magnitude(int32_t v) { return (uint32_t)(v < 0 ? -v : v); }

static void flush(mf_runs *runs) {
    if (runs->entries) {
        runs->run.pairs = (runs->entries + 1) / 2;
        if (runs->entries % 2) {
            runs->run.column[runs->entries] = runs->run.column[runs->entries - 1];
        }
        runs->p->isa->add_columns(runs->p, &runs->run, runs->total);
    }
    memset(&runs->run, 0, sizeof runs->run);
    runs->entries = runs->load = 0;
}

static void add_column(mf_runs *runs, uint32_t column, int32_t delta) {
    const uint32_t size = magnitude(delta), negative = delta < 0;
    if (runs->entries == 2 * MF_RUN_PAIRS || (runs->entries && runs->load + size > 255)) {
        flush(runs);
    }
    const uint32_t at = runs->entries++, by = at % 2 ? UINT32_C(0x01000100) : UINT32_C(0x00010001);
    runs->load += size;
    runs->run.column[at] = column;
    runs->run.magnitude[at / 2] |= size * by;
    runs->run.sign[at / 2] |= negative * 255 * by;
    runs->run.correction += (int32_t)(negative * size);
}

static void add_columns(const mf_packed *p, const int32_t *delta, uint32_t *column,
                        int32_t *total) {
    mf_runs runs;
    const uint32_t columns = p->columns;
    uint32_t count = 0;
    runs.p = p;
    runs.total = total;
    runs.entries = 0;
    flush(&runs);
    for (uint32_t j = 0; j < columns; j++) { /* no branch, for none would be foreseen */
        column[count] = j;
        count += delta[j] != 0;
    }
    for (uint32_t i = 0; i < count; i++) {
        for (int32_t rest = delta[column[i]], part; rest; rest -= part) {
            part = clamp(rest, -LARGEST_PART, LARGEST_PART);
            add_column(&runs, column[i], part);
        }
    }
    flush(&runs);
}

/* Whether adding columns one after another takes no longer than the whole product. In eighths of what a row of
 * one of its columns takes: COLUMN or RUN a row, and OWN whatever the number of rows (measured on AVX2). */
static int few(const mf_packed *p, const int32_t *delta) {
    enum { COLUMN = 12, RUN = 27, OWN = 3600 };
    const uint32_t columns = p->columns;
    const uint64_t rows = p->rows;
    uint32_t entries = 0, load = 0;
    for (uint32_t j = 0; j < columns; j++) {
        entries += delta[j] != 0;
        load += magnitude(delta[j]);
    }
    const uint32_t full = entries / (2 * MF_RUN_PAIRS), loaded = load / 224;
    const uint64_t runs = full > loaded ? full : loaded;
    return entries * (COLUMN * rows + OWN) + RUN * runs * rows <= 8 * rows * columns;
}

/* Takes what the whole product can of the differences; returns whether something is left in `rest`. */
static int32_t take(const mf_packed *p, const int32_t *from, int32_t *rest, int16_t *now) {
    const int32_t high = p->format == MF_CODES16 ? 32767 : p->format == MF_CIRCULANT ? 255 : 127;
    const int32_t low = high == 127 ? -128 : -high; /* as codes of 8 bits may be */
    const uint32_t columns = p->columns;
    int32_t left = 0;
    for (uint32_t j = 0; j < columns; j++) {
        const int32_t all = from[j], part = clamp(all, low, high);
        now[j] = (int16_t)part;
        rest[j] = all - part;
        left |= all - part;
    }
    return left;
}

void mf_packed_accumulate(const void *packed, const int32_t *delta, int32_t *total, void *scratch) {
    const mf_packed *p = packed;
    int32_t *rest = (int32_t *)(void *)((uint8_t *)scratch + MF_STEPS * p->prepared_bytes);
    int16_t *now = (int16_t *)(void *)(rest + p->columns);
    while (!p->by_columns || !few(p, delta)) {
        const int32_t left = take(p, delta, rest, now);
        mf_packed_linear(packed, now, 0, 1, total, total, 0, scratch);
        if (!left) {
            return;
        }
        delta = rest;
    }
    add_columns(p, delta, scratch, total);
}
