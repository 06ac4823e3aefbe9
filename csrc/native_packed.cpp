// Fast products for Python: what tests compare with exact integers. Weights are packed at every call.
#include "packed.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>
#include <stdexcept>
#include <string>

#include "native_arrays.h"
#include "native_plan.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

// Packed weights and their scratch; empty where there is no fast product.
struct Packed {
    Memory weights, scratch;

    Packed(const mf_matrix &m, int x_bits) {
        require(x_bits >= 2 && x_bits <= 16, "x_bits must be from 2 to 16");
        if (const size_t bytes = mf_packed_bytes(&m, x_bits)) {
            weights = Memory(bytes);
            mf_pack(&m, x_bits, weights.data());
            scratch = Memory(mf_packed_scratch(weights.data()));
        }
    }
};

bool packed_linear(nb::handle stored, int x_bits, const Array<const int16_t> &x,
                   const std::optional<Array<const int32_t>> &bias, const Array<int32_t> &out) {
    const NativeMatrix held = as_native_matrix(stored);
    const mf_matrix &m = held.matrix;
    require(x.ndim() == 2 && x.shape(1) == m.inputs, "x must be [steps, inputs]");
    require(out.ndim() == 2 && out.shape(0) == x.shape(0) && out.shape(1) == m.out,
            "out must be [steps, outputs]");
    require(!bias || bias->size() == m.out, "bias must have one entry for each output");
    const Packed packed(m, x_bits);
    if (packed.weights.data()) {
        mf_packed_linear(packed.weights.data(), x.data(), m.inputs, x.shape(0),
                         bias ? bias->data() : nullptr, out.data(), m.out, packed.scratch.data());
    }
    return packed.weights.data() != nullptr;
}

bool packed_accumulate(nb::handle stored, int x_bits, const Array<const int32_t> &delta,
                       const Array<int32_t> &total) {
    const NativeMatrix held = as_native_matrix(stored);
    const mf_matrix &m = held.matrix;
    require(delta.size() == m.inputs, "delta must have one entry for each input of the matrix");
    require(total.size() == m.out, "total must have one entry for each output of the matrix");
    for (size_t i = 0; i < delta.size(); i++) {
        require(delta.data()[i] > -65536 && delta.data()[i] < 65536, "delta has at most 17 bits");
    }
    const Packed packed(m, x_bits);
    if (packed.weights.data()) {
        mf_packed_accumulate(packed.weights.data(), delta.data(), total.data(),
                             packed.scratch.data());
    }
    return packed.weights.data() != nullptr;
}

void packed_linear_f32(const Array<const float> &w, const Array<const float> &x,
                       const std::optional<Array<const float>> &bias, const Array<float> &out) {
    require(w.ndim() == 2 && x.ndim() == 2 && x.shape(1) == w.shape(1),
            "x must be [steps, inputs]");
    require(out.ndim() == 2 && out.shape(0) == x.shape(0) && out.shape(1) == w.shape(0),
            "out must be [steps, outputs]");
    require(!bias || bias->size() == w.shape(0), "bias must have one entry for each output");
    const auto rows = static_cast<uint32_t>(w.shape(0)), inputs = static_cast<uint32_t>(w.shape(1));
    const Memory packed = Memory(mf_packed_f32_bytes(rows, inputs));
    mf_pack_f32(w.data(), rows, inputs, packed.data());
    mf_packed_linear_f32(packed.data(), x.data(), inputs, x.shape(0), bias ? bias->data() : nullptr,
                         out.data(), rows);
}

void limit_isa(const std::optional<std::string> &name) {
    require(mf_limit_isa(name ? name->c_str() : nullptr) == 0,
            "this CPU or this build has no such instruction set");
}

}  // namespace

void bind_packed(nb::module_ &m) {
    m.def("packed_linear", &packed_linear, "matrix"_a, "x_bits"_a, "x"_a.noconvert(),
          "bias"_a.noconvert().none(), "out"_a.noconvert());
    m.def("packed_accumulate", &packed_accumulate, "matrix"_a, "x_bits"_a, "delta"_a.noconvert(),
          "total"_a.noconvert());
    m.def("packed_linear_f32", &packed_linear_f32, "w"_a.noconvert(), "x"_a.noconvert(),
          "bias"_a.noconvert().none(), "out"_a.noconvert());
    m.def("isa", &mf_isa);
    m.def("limit_isa", &limit_isa, "name"_a.none());
}
