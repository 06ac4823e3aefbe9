// Plans of Python (modelflex.core.plan) in the form that csrc/plan.c runs.
#ifndef MODELFLEX_NATIVE_PLAN_H
#define MODELFLEX_NATIVE_PLAN_H

#include <nanobind/nanobind.h>

#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "native_arrays.h"
#include "native_gates.h"
#include "native_limits.h"
#include "native_matrix.h"
#include "native_refine.h"
#include "plan.h"

// Zeroed memory on a cache line's boundary.
class Memory {
  public:
    Memory() = default;
    explicit Memory(size_t bytes);
    uint8_t *data() const { return memory_.get(); }

  private:
    struct Free {
        void operator()(void *p) const { std::free(p); }
    };
    std::unique_ptr<uint8_t, Free> memory_;
};

// What is multiplied, packed once and shared by all streams.
class Weights {
  public:
    Weights() = default;
    Weights(const Weights &) = delete;
    Weights &operator=(const Weights &) = delete;
    // `stored` is a core.stored_matrix.StoredMatrix; `map` is the size of what taps point into.
    void add_codes(nanobind::handle stored, int x_bits, int accumulator_bits, nanobind::handle bias,
                   nanobind::handle taps, uint32_t map, uint32_t unit, bool packed);
    void add_floats(const Array<const float> &matrix, nanobind::handle bias, nanobind::handle taps,
                    uint32_t map, uint32_t unit);
    // What progressive products of floats multiply x with, and what is added as often (refine.h).
    void add_term_inputs(const Array<const float> &v, nanobind::handle index, uint32_t inputs,
                         nanobind::handle bias);
    void add_term_outputs(const Array<const float> &u, nanobind::handle bias);

    enum class Form { kProduct, kTermInputs, kTermOutputs };
    struct Product {
        Form form = Form::kProduct;
        mf_product product = {};
        int bits = 0;        // of the accumulator; 0: floats
        int x_bits = 0;      // of the codes that it is packed for
        size_t entering = 0; // elements of the vector or map that is multiplied
        uint32_t kept = 0, width = 0; // of term inputs
        bool ascending = true;        // their places in every row
        uint64_t bound = 0;  // of the magnitude of its sums; UINT64_MAX: none is known
        Memory packed, bias, taps, codes, table, multipliers, index;
    };
    const Product &at(size_t site) const;
    size_t count() const { return products_.size(); }
    size_t scratch_bytes() const { return scratch_bytes_; }
    // The terms of two products, unpacked once for all plans.
    const Unpacked &unpacked(uint32_t inner, uint32_t outer) const;
    // Of the instruction set for which everything is packed.
    const mf_elementwise *const kernels = mf_elementwise_table();

  private:
    static void add_bias(Product &made, nanobind::handle bias);
    static void own(Product &made, const NativeMatrix &native);
    void finish(Product &made, nanobind::handle taps, uint32_t map, uint32_t unit);
    std::deque<Product> products_; // stay where they are: calls point to them
    size_t scratch_bytes_ = 0;
    mutable std::map<std::pair<uint32_t, uint32_t>, std::unique_ptr<Unpacked>> unpacked_;
};

// A row of a buffer as Python names it, checked against the memory.
struct Operand {
    mf_place place;
    size_t size; // elements
};

class Plan {
  public:
    Plan(std::shared_ptr<Weights> weights, bool integer, uint32_t rows, size_t state_bytes,
         size_t scratch_bytes);
    Plan(const Plan &) = delete;
    Plan &operator=(const Plan &) = delete;
    // Operands are (byte offset in memory, bytes to the next row, elements).
    void begin_stage(bool once);
    void add_call(int kernel, int site, const nanobind::list &inputs, const nanobind::list &outputs,
                  const nanobind::dict &attrs, bool ahead);
    void add_slot(nanobind::handle place, size_t item_bytes, nanobind::handle init);
    void finish(nanobind::handle x, nanobind::handle y);

    size_t calls() const; // those that are made
    bool runs_once(size_t site) const;
    bool is_refined(size_t site) const; // a product of terms
    // Whether the state of so many rows is one that steps may begin with.
    bool allows_state(const uint8_t *state, size_t rows) const;

    std::shared_ptr<Weights> weights;
    bool integer, per_step = true, finished = false;
    uint32_t rows;
    size_t state_bytes, memory_bytes;
    Operand x = {}, y = {};
    size_t in_place = 0; // elements of x that only refinements read, which take them from the caller's memory
    uint64_t macs = 0; // of a row
    std::vector<mf_call> entering; // quantise x as it comes in; none: x is stored
    std::vector<mf_stage> stages;
    struct Slot {
        mf_place place;
        size_t bytes;
    };
    std::vector<Slot> slots; // of all stages, in their order
    Proof proof;
    std::vector<std::unique_ptr<Refinement>> refinements; // by their numbers, once the plan is finished
    std::vector<uint32_t> order;    // numbers of refinements as they run
    std::vector<uint64_t> reserves; // of refinements: ns that a step goes on after them; empty: not measured yet
    std::vector<double> term_ns;    // of refinements, measured with the reserves; 0: not known

  private:
    Operand operand(nanobind::handle given, size_t item_bytes) const;
    void read_attrs(mf_call &call, const nanobind::dict &attrs);
    void check(const mf_call &call, const std::vector<Operand> &in,
               const std::vector<Operand> &out) const;
    const int32_t *keep(nanobind::handle array, size_t *count, int32_t low, int32_t high);

    void prove();
    uint64_t bound(const LoadedCall &made) const;
    void join_calls();
    void take_entering();
    void take_in_place();
    void share_time();

    struct Stage {
        std::vector<LoadedCall> ahead, step;
        std::vector<mf_call> calls;
        std::vector<mf_slot> slots;
        bool once;
    };
    std::deque<Stage> made_;
    std::map<size_t, bool> once_; // of sites: whether their stage runs once
    std::deque<std::vector<int32_t>> constants_;
    std::vector<std::unique_ptr<Gates>> gates_;
    std::deque<std::vector<uint8_t>> inits_;
};

void bind_weights(nanobind::module_ &m);
void bind_plan(nanobind::module_ &m);
void bind_runtime(nanobind::module_ &m);
void bind_batch(nanobind::module_ &m);

#endif
