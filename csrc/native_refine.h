// Progressive products of a plan, and what a step may spend on them.
#ifndef MODELFLEX_NATIVE_REFINE_H
#define MODELFLEX_NATIVE_REFINE_H

#include <nanobind/nanobind.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "plan.h"

class Weights;

// Terms in 16 bits; without any where that does not hold them.
struct Unpacked {
    Unpacked(const mf_matrix &v, const mf_matrix &u);
    mf_unpacked_terms terms = {};
    std::vector<int16_t> v, u;
    std::vector<uint32_t> index;
    bool fits = true;

  private:
    void read(const mf_matrix &m, uint32_t at, uint32_t n, std::vector<int16_t> &to);
};

// What the `refinement` of a call points to.
struct Refinement {
    mf_refinement refinement = {};
    std::vector<int32_t> mu;
    uint64_t macs = 0;       // of all terms
    uint64_t operations = 0; // multiplications and additions of a term
};

// Of a call of refine_*, whose kernel and site are known. Throws std::invalid_argument where attributes, both products
// and the kernel contradict each other.
std::unique_ptr<Refinement> make_refinement(const mf_call &call, const nanobind::dict &attrs,
                                            const Weights &weights);

inline bool is_refine(int kernel) { return kernel >= MF_REFINE_I32 && kernel <= MF_REFINE_F32; }

#endif
