// Pieces of a plan's memory, and whether they share bytes.
#ifndef MODELFLEX_NATIVE_PIECES_H
#define MODELFLEX_NATIVE_PIECES_H

#include <vector>

#include "plan.h"

// What a call reads or writes of every row.
struct Piece {
    mf_place place;
    size_t bytes;
};

// Whether no row of the one has a byte of any row of the other.
bool is_apart(const Piece &a, const Piece &b, size_t rows);
bool is_same(const Piece &a, const Piece &b);
// Whether every row of the one has all bytes of the same row of the other.
bool is_within(const Piece &inner, const Piece &outer);

struct LoadedCall {
    mf_call call;
    std::vector<Piece> reads, writes;
    bool ahead; // for all rows at once
};

#endif
