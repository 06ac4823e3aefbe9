/* The body of matrix.c for one type of vector and one of accumulator: MF_X and MF_ACC are the types,
 * MF_NAME(f) gives their names to functions. Included once for each pair, hence without a guard.
 *
 * Every function adds to acc[r * stride]: the stride lets windows write [out][positions]. */

static inline MF_ACC MF_NAME(dot)(const int16_t *levels, const MF_X *x, uint32_t n) {
    MF_ACC sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        sum += levels[i] * x[i];
    }
    return sum;
}

static inline void MF_NAME(add_scaled)(const int16_t *levels, int32_t by, uint32_t n,
                                       MF_ACC *restrict acc, size_t stride) {
    if (stride == 1) { /* said apart, so that it is vectorised */
        for (uint32_t i = 0; i < n; i++) {
            acc[i] += (MF_ACC)levels[i] * by;
        }
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        acc[i * stride] += (MF_ACC)levels[i] * by;
    }
}

/* Codes of one row, the first of them number `at` of all, times x. */
static MF_ACC MF_NAME(row_tile)(const mf_matrix *m, uint32_t at, const int16_t *levels,
                                const MF_X *x, uint32_t n) {
    if (!m->multipliers) {
        return MF_NAME(dot)(levels, x, n);
    }
    const uint32_t width = m->row_codes / m->groups;
    MF_ACC sum = 0;
    for (uint32_t i = 0, run; i < n; i += run) {
        run = least(n - i, width - (at + i) % width);
        sum += mf_multiplier(m, (at + i) / width) * MF_NAME(dot)(levels + i, x + i, run);
    }
    return sum;
}

/* A row times x: dense by rows, and the sparse layouts, whose inputs are gathered for every tile. */
static MF_ACC MF_NAME(row)(const mf_matrix *m, uint32_t r, const MF_X *x) {
    int16_t levels[MF_TILE];
    MF_X gathered[MF_TILE];
    const int sparse = m->layout != MF_LAYOUT_DENSE;
    const uint32_t first = r * m->row_codes;
    mf_places places = {{0, 0, 0, 0}, 0, 0};
    if (sparse) {
        places = mf_places_of(m, r);
    }
    MF_ACC sum = 0;
    for (uint32_t j = 0, n; j < m->row_codes; j += n) {
        n = least(MF_TILE, m->row_codes - j);
        mf_unpack_levels(m, first + j, n, levels);
        for (uint32_t i = 0; sparse && i < n; i++) {
            gathered[i] = x[mf_next_place(m, &places)];
        }
        sum += MF_NAME(row_tile)(m, first + j, levels, sparse ? gathered : x + j, n);
    }
    return sum;
}

static void MF_NAME(multiply_rows)(const mf_matrix *m, const MF_X *x, MF_ACC *acc, size_t stride) {
    for (uint32_t r = 0; r < m->rows; r++) {
        acc[r * stride] += MF_NAME(row)(m, r, x);
    }
}

/* Adds rows first ... end - 1 of column j, times `by`; acc is that of row 0. */
static void MF_NAME(column)(const mf_matrix *m, uint32_t j, int32_t by, uint32_t first,
                            uint32_t end, MF_ACC *acc, size_t stride) {
    int16_t levels[MF_TILE];
    for (uint32_t r = first, n; r < end; r += n) {
        n = least(MF_TILE, end - r);
        mf_unpack_levels(m, j * m->out + r, n, levels);
        if (!m->multipliers) {
            MF_NAME(add_scaled)(levels, by, n, acc + r * stride, stride);
            continue;
        }
        for (uint32_t i = 0; i < n; i++) {
            const uint32_t group = (r + i) * m->groups + j / (m->row_codes / m->groups);
            MF_NAME(add_scaled)(levels + i, mf_multiplier(m, group) * by, 1,
                                acc + (r + i) * stride, stride);
        }
    }
}

static void MF_NAME(multiply_columns)(const mf_matrix *m, const MF_X *x, sent_inputs sent,
                                      MF_ACC *acc, size_t stride) {
    for (uint32_t j = 0; j < m->inputs; j++) {
        if (any_sent(sent, j, 1) && x[j] != 0) {
            MF_NAME(column)(m, j, x[j], 0, m->out, acc, stride);
        }
    }
}

/* Some codes of one circulant block, from number `first` of its generator on: code f is what input k
 * adds to output (f + k) mod b. acc and x are those of the block. */
static void MF_NAME(circulant_run)(const int16_t *levels, uint32_t first, uint32_t n, uint32_t b,
                                   int32_t multiplier, const MF_X *x, MF_ACC *acc, size_t stride) {
    for (uint32_t k = 0; k < b; k++) {
        if (x[k] == 0) {
            continue;
        }
        const int32_t by = multiplier * x[k];
        const uint32_t row = first + k < b ? first + k : first + k - b;
        const uint32_t below = least(n, b - row);
        MF_NAME(add_scaled)(levels, by, below, acc + row * stride, stride);
        MF_NAME(add_scaled)(levels + below, by, n - below, acc, stride);
    }
}

/* Lines are block rows or, by columns, block columns: generators one after another. */
static void MF_NAME(multiply_circulant)(const mf_matrix *m, const MF_X *x, sent_inputs sent,
                                        MF_ACC *acc, size_t stride) {
    int16_t levels[MF_TILE];
    const uint32_t b = m->block, lines = m->by_columns ? m->inputs / b : m->rows;
    const uint32_t length = m->by_columns ? m->rows * b : m->row_codes;
    const uint32_t width = m->multipliers ? m->row_codes / m->groups : m->row_codes;
    for (uint32_t line = 0; line < lines; line++) {
        if (m->by_columns && !any_sent(sent, line * b, b)) {
            continue;
        }
        for (uint32_t j = 0, n; j < length; j += n) {
            n = least(MF_TILE, length - j);
            mf_unpack_levels(m, line * length + j, n, levels);
            for (uint32_t i = 0, run; i < n; i += run) {
                const uint32_t block = (j + i) / b, first = (j + i) % b;
                const uint32_t p = m->by_columns ? block : line, q = m->by_columns ? line : block;
                const uint32_t place = q * b + first; /* in its row */
                run = least(least(n - i, b - first), width - place % width);
                const int32_t multiplier =
                    m->multipliers ? mf_multiplier(m, p * m->groups + place / width) : 1;
                MF_NAME(circulant_run)(levels + i, first, run, b, multiplier, x + q * b,
                                       acc + p * b * stride, stride);
            }
        }
    }
}

static void MF_NAME(multiply)(const mf_matrix *m, const MF_X *x, sent_inputs sent, MF_ACC *acc,
                              size_t stride) {
    if (m->layout == MF_LAYOUT_CIRCULANT) {
        MF_NAME(multiply_circulant)(m, x, sent, acc, stride);
    } else if (m->by_columns) {
        MF_NAME(multiply_columns)(m, x, sent, acc, stride);
    } else if (any_sent(sent, 0, m->inputs)) {
        MF_NAME(multiply_rows)(m, x, acc, stride);
    }
}

/* What the weight sees of a map at one position; whether any of it is not 0. */
static int MF_NAME(see)(const int32_t *taps, uint32_t n, const MF_X *map, MF_X *seen) {
    int any = 0;
    for (uint32_t j = 0; j < n; j++) {
        seen[j] = taps[j] < 0 ? 0 : map[taps[j]];
        any |= seen[j] != 0;
    }
    return any;
}

static void MF_NAME(multiply_windows)(const mf_matrix *m, const int32_t *taps, uint32_t positions,
                                      const MF_X *map, MF_X *seen, MF_ACC *acc) {
    for (uint32_t p = 0; p < positions; p++) {
        if (MF_NAME(see)(taps + (size_t)p * m->inputs, m->inputs, map, seen)) {
            MF_NAME(multiply)(m, seen, all_sent, acc + p, positions);
        }
    }
}

#undef MF_X
#undef MF_ACC
#undef MF_NAME
