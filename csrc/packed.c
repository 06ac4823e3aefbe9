/* Packing of stored matrices and the products of packed ones; kernels in the files of instruction sets. */
#include "packed.h"

#include <string.h>

#include "matrix_tiles.h"
#include "packed_kernels.h"

MF_ASSERT(head_fits, sizeof(mf_packed) <= MF_HEAD);
MF_ASSERT(padding_suits_every_format, MF_ALIGN % 32 == 0);

enum { LARGEST_TABLE_BITS = 4 };

/* The largest sum of a table of signs. Its negative is a code too, so that 128 would not fit int8. */
static int32_t largest_sum(const mf_matrix *m) {
    const int8_t *a = m->table;
    int32_t largest = 0;
    for (uint32_t t = 0; t < m->rows / m->rows_per_table; t++) {
        int32_t sum = 0;
        for (uint32_t i = 0; i < m->bits; i++, a++) {
            sum += *a < 0 ? -*a : *a;
        }
        largest = sum > largest ? sum : largest;
    }
    return largest == 128 ? 129 : largest;
}

/* The largest magnitude of a code, multipliers included. */
static int32_t largest_code(const mf_matrix *m) {
    int32_t level = 128;
    if (m->grid == MF_GRID_SYMMETRIC) {
        level = INT32_C(1) << (m->bits - 1);
    } else if (m->grid == MF_GRID_ODD) {
        level = (INT32_C(1) << m->bits) - 1;
    } else if (m->grid == MF_GRID_POWER) {
        level = INT32_C(1) << ((1 << (m->bits - 1)) - 2);
    } else if (m->grid == MF_GRID_SIGNS) {
        level = largest_sum(m);
    }
    return m->multipliers ? 63 * level : level;
}

static int has_product(const mf_instructions *isa, mf_format format) {
    return isa->products[format].multiply != NULL;
}

/* Sums of transformed results (MF_CIRCULANT) are up to b / 2 times as large as results. */
static int circulant_fits(const mf_matrix *m, int x_bits) {
    return m->layout == MF_LAYOUT_CIRCULANT && (m->block == 4 || m->block == 8 || m->block == 16) &&
           x_bits <= 8 && largest_code(m) <= 128 &&
           (int64_t)m->inputs * 128 * (INT64_C(1) << x_bits) * (m->block / 2) < INT32_MAX;
}

static mf_format of_few_levels(const mf_matrix *m, const mf_instructions *isa) {
    const int linear = m->grid == MF_GRID_SYMMETRIC || m->grid == MF_GRID_ODD;
    const unsigned step = m->bits == 1 ? 2 : m->bits == 2 ? 1 : 0;
    const mf_format format = (mf_format)((linear ? MF_AFFINE4 : MF_TABLE4) + step);
    const int one_table_a_tile =
        m->rows_per_table % isa->tile_rows == 0 || m->rows_per_table >= m->rows;
    return linear || one_table_a_tile ? format : MF_FORMATS;
}

/* The most compact format that holds the matrix, or MF_FORMATS. */
static mf_format choose(const mf_matrix *m, int x_bits, const mf_instructions *isa) {
    mf_format format = MF_FORMATS;
    if (circulant_fits(m, x_bits)) {
        format = has_product(isa, MF_CIRCULANT) ? MF_CIRCULANT : MF_ROTATED;
        if (has_product(isa, format)) {
            return format;
        }
        format = MF_FORMATS;
    }
    if (x_bits <= 8 && largest_code(m) <= 128) {
        if (m->layout == MF_LAYOUT_DENSE && m->bits <= LARGEST_TABLE_BITS && !m->multipliers) {
            format = of_few_levels(m, isa);
        }
        if (format == MF_FORMATS || !has_product(isa, format)) {
            format = has_product(isa, MF_CODES8) ? MF_CODES8 : MF_AFFINE8;
        }
    } else if (largest_code(m) <= 32768) {
        format = MF_CODES16;
    }
    return format == MF_FORMATS || !has_product(isa, format) ? MF_FORMATS : format;
}

static uint32_t tiles_of(const mf_packed *p) {
    return (p->rows + p->isa->tile_rows - 1) / p->isa->tile_rows;
}

/* The head of the packed form of m, or format MF_FORMATS. */
static mf_packed lay_out(const mf_matrix *m, int x_bits) {
    const mf_instructions *isa = mf_chosen();
    mf_packed p;
    memset(&p, 0, sizeof p);
    p.isa = isa;
    p.format = choose(m, x_bits, isa);
    if (p.format == MF_FORMATS) {
        return p;
    }
    p.rows = m->out;
    p.columns = m->inputs;
    p.block = m->block;
    p.tiles = MF_HEAD;
    p.scale = 1;
    if (p.format == MF_AFFINE8) {
        p.offset = -128;
    } else if (p.format >= MF_AFFINE4 && p.format <= MF_AFFINE1) {
        p.offset = -(m->grid == MF_GRID_ODD ? (1 << m->bits) - 1 : 1 << (m->bits - 1));
        p.scale = m->grid == MF_GRID_ODD ? 2 : 1;
    }
    size_t end;
    if (p.format == MF_CIRCULANT || p.format == MF_ROTATED) {
        const size_t rows = p.format == MF_ROTATED ? MF_ROTATED_ROWS : MF_LANES * m->block;
        p.vectors = m->inputs / m->block;
        end = p.tiles + mf_round_up(m->out, rows) * p.vectors;
        const size_t each = sizeof(uint32_t) + (size_t)m->block * m->block; /* of a block column */
        p.prepared_bytes = mf_round_up(8 + p.vectors * each, MF_ALIGN);
    } else {
        const uint32_t columns = mf_vector_columns(p.format);
        p.vectors = (m->inputs + columns - 1) / columns;
        const size_t vectors = (size_t)tiles_of(&p) * p.vectors;
        p.tables = mf_round_up(p.tiles + vectors * isa->tile_rows * 4, MF_ALIGN);
        end = p.tables + (p.format >= MF_TABLE4 ? (size_t)tiles_of(&p) * 16 : 0);
        p.prepared_bytes = mf_round_up(2 * mf_round_up(m->inputs, MF_ALIGN) + m->inputs / 2, MF_ALIGN) +
                           MF_ALIGN; /* two bytes a column and lists, of the neediest kernel */
    }
    if (m->by_columns && isa->add_columns && p.format != MF_CODES16 && p.format < MF_CIRCULANT) {
        p.by_columns = mf_round_up(end, MF_ALIGN);
        p.column_stride = mf_round_up(m->out, MF_COLUMN_CHUNK);
        if (p.column_stride >= 512 && p.column_stride % (2 * MF_COLUMN_CHUNK) == 0) {
            p.column_stride += MF_COLUMN_CHUNK; /* an odd number: neighbours in all sets of a cache */
        }
        p.few = mf_few_columns(p.rows, p.columns);
        end = p.by_columns + p.column_stride * m->inputs;
    }
    p.bytes = mf_round_up(end, MF_ALIGN);
    return p;
}

size_t mf_packed_bytes(const mf_matrix *m, int x_bits) { return lay_out(m, x_bits).bytes; }

static uint8_t *byte_of_tile(const mf_packed *p, uint32_t row, uint32_t vector) {
    const uint32_t tile = row / p->isa->tile_rows, panel = tile / MF_PANEL_TILES;
    const uint32_t left = tiles_of(p) - panel * MF_PANEL_TILES;
    const size_t wide = left < MF_PANEL_TILES ? left : MF_PANEL_TILES;
    const size_t index = (size_t)panel * MF_PANEL_TILES * p->vectors + vector * wide +
                         tile % MF_PANEL_TILES;
    return (uint8_t *)(uintptr_t)p + p->tiles +
           (index * p->isa->tile_rows + row % p->isa->tile_rows) * 4;
}

/* The tables of 2^bits levels each, of a grid of few. */
static void levels_of(const mf_matrix *m, uint32_t row, int8_t levels[16]) {
    uint8_t stream[8] = {0};
    int16_t wide[16];
    const uint32_t count = UINT32_C(1) << m->bits;
    mf_matrix one = *m;
    for (uint32_t n = 0, bit = 0; n < count; n++) {
        for (uint32_t i = 0; i < m->bits; i++, bit++) {
            stream[bit / 8] |= (uint8_t)(((n >> i) & 1) << (bit % 8));
        }
    }
    one.codes = stream;
    one.rows = one.rows_per_table = 1;
    one.row_codes = count;
    one.by_columns = 0;
    if (m->table) {
        const size_t entries = m->grid == MF_GRID_SIGNS ? m->bits : count;
        one.table += row / m->rows_per_table * entries;
    }
    mf_unpack_levels(&one, 0, count, wide);
    for (uint32_t n = 0; n < 16; n++) {
        levels[n] = (int8_t)(n < count ? wide[n] : 0);
    }
}

/* One code into its place. */
static void put(mf_packed *p, uint32_t row, uint32_t column, int32_t code) {
    if (p->by_columns) {
        ((int8_t *)p)[p->by_columns + column * p->column_stride + row] = (int8_t)code;
    }
    if (p->format == MF_CODES16) {
        int16_t *pair = (int16_t *)(void *)byte_of_tile(p, row, column / 2);
        pair[column % 2] = (int16_t)code;
        return;
    }
    const uint32_t bits = mf_format_bits(p->format), planes = 8 / bits, quad = column / 4;
    uint8_t *byte = byte_of_tile(p, row, quad / planes) + column % 4;
    uint32_t number = (uint32_t)((code - p->offset) / p->scale);
    if (p->format == MF_CODES8 || p->format == MF_AFFINE8) {
        *byte = (uint8_t)number;
        return;
    }
    if (p->format >= MF_TABLE4) {
        const int8_t *table = (const int8_t *)p + p->tables + row / p->isa->tile_rows * 16;
        for (number = 0; table[number] != code;) {
            number++;
        }
    }
    *byte |= (uint8_t)(number << (quad % planes * bits));
}

static void put_generator(mf_packed *p, uint32_t block_row, uint32_t q, uint32_t k, int32_t code) {
    if (p->format == MF_ROTATED) {
        const size_t row = block_row * p->block, group = row / MF_ROTATED_ROWS * p->vectors + q;
        ((int8_t *)p)[p->tiles + group * MF_ROTATED_ROWS + row % MF_ROTATED_ROWS + k] = (int8_t)code;
        return;
    }
    const uint32_t half = p->block / 2, place = k % half;
    const size_t group = (size_t)(block_row / MF_LANES) * p->vectors + q;
    const size_t vector = group * (half / 2) + place / 2;
    const size_t pair = (vector * MF_LANES + block_row % MF_LANES) * 2 + place % 2;
    ((uint8_t *)p)[p->tiles + pair * 2 + k / half] = (uint8_t)(code + 128);
}

/* A code of a stored array, number `at` of stored row `line` (block row of a circulant). */
static void put_stored(const mf_matrix *m, mf_packed *p, uint32_t row, uint32_t place,
                       uint32_t column, int32_t code) {
    if (m->layout != MF_LAYOUT_CIRCULANT) {
        put(p, row, column, code);
        return;
    }
    const uint32_t b = m->block, q = place / b, k = place % b;
    if (p->format >= MF_CIRCULANT) {
        put_generator(p, row, q, k, code);
        return;
    }
    for (uint32_t j = 0; j < b; j++) {
        put(p, row * b + (j + k) % b, q * b + j, code);
    }
}

/* The codes of a line: a stored row or, by columns, a (block) column. */
static void put_line(const mf_matrix *m, mf_packed *p, uint32_t line, uint32_t length) {
    int16_t levels[MF_TILE];
    mf_places places = {{0, 0, 0, 0}, 0, 0};
    const int sparse = m->layout == MF_LAYOUT_BLOCKS || m->layout == MF_LAYOUT_N_M;
    const uint32_t b = m->block, width = m->multipliers ? m->row_codes / m->groups : 1;
    if (sparse) {
        places = mf_places_of(m, line);
    }
    for (uint32_t j = 0; j < length; j++) {
        if (j % MF_TILE == 0) {
            const uint32_t left = length - j;
            mf_unpack_levels(m, line * length + j, left < MF_TILE ? left : MF_TILE, levels);
        }
        const uint32_t row = m->by_columns ? j / b : line;
        const uint32_t place = m->by_columns ? line * b + j % b : j;
        const int32_t by =
            m->multipliers ? mf_multiplier(m, row * m->groups + place / width) : 1;
        const uint32_t column = sparse ? mf_next_place(m, &places) : place;
        put_stored(m, p, row, place, column, levels[j % MF_TILE] * by);
    }
}

void mf_pack(const mf_matrix *m, int x_bits, void *packed) {
    mf_packed *p = packed;
    const mf_packed head = lay_out(m, x_bits);
    memset(packed, head.format == MF_AFFINE8 || head.format == MF_CIRCULANT ? 128 : 0, head.bytes);
    *p = head;
    if (head.by_columns) {
        memset((uint8_t *)packed + head.by_columns, 0, head.bytes - head.by_columns);
    }
    if (head.format >= MF_TABLE4 && head.format <= MF_TABLE1) {
        for (uint32_t t = 0; t < tiles_of(p); t++) {
            levels_of(m, t * head.isa->tile_rows, (int8_t *)packed + head.tables + (size_t)t * 16);
        }
    }
    const uint32_t b = m->layout == MF_LAYOUT_CIRCULANT ? m->block : 1;
    const uint32_t lines = m->by_columns ? m->inputs / b : m->rows;
    const uint32_t length = m->by_columns ? m->rows * b : m->row_codes;
    for (uint32_t line = 0; line < lines; line++) {
        put_line(m, p, line, length);
    }
}

size_t mf_packed_scratch(const void *packed) {
    const mf_packed *p = packed;
    const size_t differences = p->columns * (sizeof(int32_t) + sizeof(int16_t));
    return MF_STEPS * p->prepared_bytes + mf_round_up(differences, MF_ALIGN);
}

void mf_packed_linear(const void *packed, const int16_t *x, size_t x_stride, size_t steps,
                      const int32_t *bias, int32_t *acc, size_t acc_stride, void *scratch) {
    const mf_packed *p = packed;
    const mf_product_kernels *product = &p->isa->products[p->format];
    uint8_t *prepared = scratch;
    mf_steps some;
    some.x = prepared;
    some.x_stride = p->prepared_bytes;
    some.bias = bias;
    some.acc_stride = acc_stride;
    for (size_t t = 0; t < steps; t += some.steps) {
        some.steps = steps - t < MF_STEPS ? steps - t : MF_STEPS;
        some.acc = acc + t * acc_stride;
        for (size_t i = 0; i < some.steps; i++) {
            some.correction[i] =
                product->prepare(p, x + (t + i) * x_stride, prepared + i * p->prepared_bytes);
        }
        product->multiply(p, &some);
    }
}
