// What is proven of the codes of a plan: products read none that are wider than what they are packed for.
#ifndef MODELFLEX_NATIVE_LIMITS_H
#define MODELFLEX_NATIVE_LIMITS_H

#include <cstdint>
#include <vector>

#include "native_pieces.h"

class Weights;

// Integers of the state that must lie from `low` to `high` whenever a step begins.
struct Limit {
    Piece piece;
    size_t item_bytes;
    int64_t low, high;
    bool holds(const uint8_t *state, size_t rows) const;
};
bool operator==(const Limit &a, const Limit &b);

struct StageCalls {
    const std::vector<LoadedCall> *ahead, *step;
};

struct Proof {
    std::vector<Limit> limits;
    // Sums of 32 bits that are carried, which change as the codes sent do: so they stay within three times the
    // bound of their product, that of the first sums and twice that of the codes.
    std::vector<Piece> sums;
};

// Throws where a product reads what no encoder made, or codes that are too wide.
Proof prove_codes(const std::vector<StageCalls> &stages, const Weights &weights, size_t rows, size_t state_bytes);

#endif
