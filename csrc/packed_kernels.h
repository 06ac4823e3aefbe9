/* What packed.c and the files of instruction sets share: orders of packed weights, tables of kernels. */
#ifndef MODELFLEX_PACKED_KERNELS_H
#define MODELFLEX_PACKED_KERNELS_H

#include "packed.h"

/* Tiles: `tile_rows` rows of an instruction set by as many columns as fill its vectors; MF_PANEL_TILES of
 * them are multiplied together. A vector of tiles holds the codes of 4 columns as bytes [row][4] (16-bit
 * codes: 2 columns), and 8 / bits such planes side by side in a byte: plane i, shifted by i * bits, stands
 * for columns 4 i ... 4 i + 3 of it. Order: [panel][vector of columns][tile in the panel]. */
#define MF_PANEL_TILES 4

/* Formats of packed codes. AFFINE: w = scale u + offset, u unsigned. TABLE: w = table[u], 16 bytes a tile. */
typedef enum {
    MF_CODES16,
    MF_CODES8,
    MF_AFFINE8,
    MF_AFFINE4,
    MF_AFFINE2,
    MF_AFFINE1,
    MF_TABLE4,
    MF_TABLE2,
    MF_TABLE1,
    MF_CIRCULANT, /* see MF_LANES */
    MF_ROTATED,   /* see MF_ROTATED_ROWS */
    MF_FORMATS
} mf_format;

/* Circulant blocks: uint8 [block rows / MF_LANES][block columns][b / 4][MF_LANES][2][2] of generators + 128,
 * the last indices counting two neighbours k, k + 1 of a generator and k, k + b / 2. */
#define MF_LANES 8
/* The same for kernels that multiply rotated inputs: int8 [rows / MF_ROTATED_ROWS][block columns]
 * [MF_ROTATED_ROWS / b block rows][b]. */
#define MF_ROTATED_ROWS 64

/* Before a loop of at most 16 rounds, whose number is a constant after inlining: unrolled entirely. Clang takes
 * GCC's pragma as a factor, and keeps a loop where the factor does not divide. */
#define MF_PRAGMA(text) _Pragma(#text)
#ifdef __clang__
#define MF_UNROLL MF_PRAGMA(clang loop unroll(full))
#else
#define MF_UNROLL MF_PRAGMA(GCC unroll 16)
#endif

struct mf_instructions;

/* Head of packed weights; offsets are in bytes from it. */
typedef struct {
    const struct mf_instructions *isa;
    mf_format format;
    uint32_t rows, columns;
    uint32_t vectors;        /* of columns */
    uint32_t block;          /* circulant: b */
    int32_t scale, offset;   /* affine */
    size_t tiles, tables;    /* offsets; tables: 16 bytes a tile */
    size_t by_columns;       /* offset of int8 [columns][column_stride], or 0 */
    size_t column_stride;    /* a multiple of MF_COLUMN_CHUNK */
    size_t few;              /* the most columns that are added one after another */
    size_t prepared_bytes;   /* of one prepared x */
    size_t bytes;
} mf_packed;

/* Floats: panels of tiles of MF_TILE_F32 rows by a column: [panel][column][tile in the panel][row]. */
enum { MF_TILE_F32 = 8, MF_PANEL_F32 = 8 };

#define MF_ALIGN 64
/* Bytes before what is packed. */
#define MF_HEAD (4 * MF_ALIGN)
#define MF_COLUMN_CHUNK 64
/* Steps that share a pass over the weights. */
#define MF_STEPS 16

/* Some prepared steps and where their results go; correction[t] is added to all rows of step t. */
typedef struct {
    const uint8_t *x;
    size_t x_stride;
    size_t steps;
    int32_t correction[MF_STEPS];
    const int32_t *bias;
    int32_t *acc;
    size_t acc_stride;
} mf_steps;

/* Columns that are added to totals, those of positive and those of negative differences. */
#define MF_LISTED 64
typedef struct {
    size_t count[2]; /* multiples of 4: a column may be there again with size 0 */
    const int8_t *column[2][MF_LISTED];
    uint8_t size[2][MF_LISTED]; /* |difference|, at most MF_LARGEST_SIZE */
} mf_columns;
#define MF_LARGEST_SIZE 127

/* Differences of neighbours (columns 2 k and 2 k + 1) that are multiplied together where both are limited to
 * MF_LARGEST_SIZE, or their sizes sum to no more than this. */
#define MF_LARGEST_PAIR 255
/* Columns that are searched together for such as are limited. */
#define MF_DIFFERENCES 32

typedef struct {
    /* Puts x into the order of the kernel and returns its correction. */
    int32_t (*prepare)(const mf_packed *p, const int16_t *x, uint8_t *prepared);
    void (*multiply)(const mf_packed *p, const mf_steps *steps);
} mf_product_kernels;

typedef struct mf_instructions {
    const char *name;
    uint32_t tile_rows;
    mf_product_kernels products[MF_FORMATS]; /* NULL: none */
    /* total += the products of listed columns; NULL: none */
    void (*add_columns)(const mf_packed *p, const mf_columns *listed, int32_t *total);
    /* Bit j % 64 of active[j / 64]: whether delta[j] is not 0. Stops once there are more than `most`. Returns how
     * many it found. NULL: none, as with add_columns. */
    size_t (*find_active)(const int32_t *delta, size_t n, size_t most, uint64_t *active);
    /* `prepare` of MF_CODES8 for differences below 2^8 in size (see MF_LARGEST_PAIR); NULL: none. Puts the numbers of
     * groups of MF_DIFFERENCES columns of which some were limited into `limited` and returns how many there are. */
    size_t (*prepare_differences)(const mf_packed *p, const int32_t *delta, uint8_t *prepared,
                                  int32_t *correction, uint32_t *limited);
    void (*linear_f32)(const float *tiles, uint32_t out, uint32_t inputs, const float *x,
                       size_t x_stride, size_t steps, const float *bias, float *y,
                       size_t y_stride);
    const mf_elementwise *elementwise;
} mf_instructions;

extern const mf_instructions mf_portable;
extern const mf_instructions mf_avx2;
extern const mf_instructions mf_avx512vnni;
extern const mf_instructions mf_neon;

/* The most columns that are added one after another (packed_columns.c). */
size_t mf_few_columns(size_t rows, size_t columns);

/* Of the chosen instruction set. */
const mf_instructions *mf_chosen(void);

static inline size_t mf_round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

/* The bits of a packed code, and the columns of a vector. */
static inline uint32_t mf_format_bits(mf_format format) {
    static const uint8_t bits[MF_FORMATS] = {16, 8, 8, 4, 2, 1, 4, 2, 1, 8, 8};
    return bits[format];
}

static inline uint32_t mf_vector_columns(mf_format format) { return 32 / mf_format_bits(format); }

#endif
