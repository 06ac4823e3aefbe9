// Runs of calls of a plan that a kernel of gates.h makes in one.
#ifndef MODELFLEX_NATIVE_GATES_H
#define MODELFLEX_NATIVE_GATES_H

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "native_pieces.h"

// What the `gates` of a call point to.
struct Gates {
    mf_gates gates;
    std::vector<int32_t> x_mu, h_mu, rises;
};

// The memory and the end of the plan to which the calls belong.
struct PlanEnd {
    size_t rows, state_bytes, memory_bytes;
    std::vector<LoadedCall> later; // calls of the stages that follow
    Piece y;
};

// Elements from `start` on of what a call makes.
struct Made {
    size_t call, start;
};
// Calls that are the elementwise part of a step, and what it reads.
struct Match {
    mf_kernel kernel;
    size_t last, cell;       // calls that make out, and the new state (GRU: the same)
    std::set<size_t> used;   // with both
    Made x, h;               // rescaling
    size_t x_at[MF_MAX_GATES], h_at[MF_MAX_GATES];
    Piece old;
    size_t old_reader;
};

// Whether the call `last` ends a step of LSTM (or GRU). Whether others need what is made between is another question.
std::optional<Match> match_gates(const std::vector<LoadedCall> &calls, size_t rows, size_t last);

// Replaces the calls of a stage that make up a step of LSTM or GRU by one call, whose Gates it returns; null where
// there are none, or other calls need what is made between. `bound` is that of the sums that a call makes.
std::unique_ptr<Gates> join_gates(std::vector<LoadedCall> &calls, const PlanEnd &plan,
                                  const std::function<uint64_t(const LoadedCall &)> &bound);

// How many calls at the beginning of a plan only quantise x, where nothing else reads x: they may be made as x comes in,
// which need not be stored then.
size_t count_entering(const std::vector<LoadedCall> &calls, const PlanEnd &plan, const Piece &x);

// The calls of refine_f32 of a plan of one row that read the first elements of x, where none but they do: they may read
// them where the caller has them.
std::vector<LoadedCall *> readers_in_place(const std::vector<LoadedCall *> &calls, const PlanEnd &plan, const Piece &x);

#endif
