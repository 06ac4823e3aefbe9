// Weights of plans: checked, copied and packed once, at load.
#include <algorithm>
#include <cstring>
#include <type_traits>

#include "native_plan.h"
#include "packed.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

constexpr size_t kAlignment = 64;

// A copy of an array of T with `count` entries (any number, where that is 0).
template <typename T>
Memory copy_of(nb::handle given, size_t count, const char *message) {
    Array<const T> array;
    require(nb::try_cast(given, array, false) && (!count || array.size() == count), message);
    Memory made(array.nbytes());
    std::memcpy(made.data(), array.data(), array.nbytes());
    return made;
}

uint64_t times(uint64_t a, uint64_t b) { return b && a > UINT64_MAX / b ? UINT64_MAX : a * b; }
uint64_t plus(uint64_t a, uint64_t b) { return a > UINT64_MAX - b ? UINT64_MAX : a + b; }

// The most that |w| of a stored matrix may be.
uint64_t largest_weight(const mf_matrix &m) {
    uint64_t largest = 128; // levels
    switch (m.grid) {
    case MF_GRID_SYMMETRIC: largest = uint64_t{1} << (m.bits - 1); break;
    case MF_GRID_ODD: largest = uint64_t{1} << m.bits; break;
    case MF_GRID_POWER: largest = 1 << 15; break;
    case MF_GRID_SIGNS: largest *= m.bits; break;
    }
    return m.multipliers ? largest << MF_MULTIPLIER_BITS : largest;
}

template <typename T>
uint64_t largest(const Memory &bias, size_t n) {
    const T *at = reinterpret_cast<const T *>(bias.data());
    uint64_t found = 0;
    for (size_t i = 0; i < n; i++) {
        const auto bits = static_cast<uint64_t>(static_cast<int64_t>(at[i]));
        found = std::max(found, at[i] < 0 ? 0 - bits : bits);
    }
    return found;
}

}  // namespace

Memory::Memory(size_t bytes) {
    const size_t whole = (bytes + kAlignment) / kAlignment * kAlignment;
    memory_.reset(static_cast<uint8_t *>(std::aligned_alloc(kAlignment, whole)));
    if (!memory_) {
        throw std::bad_alloc();
    }
    std::memset(memory_.get(), 0, whole);
}

const Weights::Product &Weights::at(size_t site) const {
    require(site < products_.size(), "a call names a product that is not there");
    return products_[site];
}

void Weights::finish(Product &made, nb::handle taps, uint32_t map, uint32_t unit) {
    mf_product &p = made.product;
    p.positions = 1;
    p.unit = unit;
    made.entering = p.inputs;
    require(unit && p.inputs % unit == 0, "a fetch unit must divide the inputs");
    if (!taps.is_none()) {
        Array<const int32_t> array;
        require(nb::try_cast(taps, array, false) && array.ndim() == 2 && array.shape(0) &&
                    array.shape(1) == p.inputs,
                "taps must be int32 [positions, inputs]");
        for (size_t i = 0; i < array.size(); i++) {
            const int32_t tap = array.data()[i];
            require(tap >= -1 && (tap < 0 || static_cast<uint32_t>(tap) < map),
                    "a tap lies beyond the map");
        }
        made.taps = copy_of<int32_t>(taps, array.size(), "taps");
        p.taps = reinterpret_cast<const int32_t *>(made.taps.data());
        p.positions = static_cast<uint32_t>(array.shape(0));
        made.entering = map;
    }
    scratch_bytes_ = std::max(scratch_bytes_, mf_product_scratch(&p));
    products_.push_back(std::move(made));
}

void Weights::add_codes(nb::handle stored, int x_bits, int bits, nb::handle bias, nb::handle taps,
                        uint32_t map, uint32_t unit, bool packed) {
    require(x_bits >= 2 && x_bits <= 16 && (bits == 32 || bits == 64), "bits of codes or sums");
    NativeMatrix native = as_native_matrix(stored);
    Product made;
    made.bits = bits;
    made.x_bits = x_bits;
    mf_product &p = made.product;
    p.matrix = native.matrix;
    p.out = p.matrix.out;
    p.inputs = p.matrix.inputs;
    if (!bias.is_none()) {
        constexpr const char *message = "a bias must have one entry for each output";
        made.bias = bits == 32 ? copy_of<int32_t>(bias, p.out, message)
                               : copy_of<int64_t>(bias, p.out, message);
        p.bias = made.bias.data();
    }
    // A row of the map has as many weights as a stored row has codes.
    made.bound = times(times(largest_weight(p.matrix), p.matrix.row_codes), uint64_t{1} << (x_bits - 1));
    if (p.bias) {
        made.bound = plus(made.bound, bits == 32 ? largest<int32_t>(made.bias, p.out)
                                                 : largest<int64_t>(made.bias, p.out));
    }
    const size_t bytes = packed && bits == 32 ? mf_packed_bytes(&p.matrix, x_bits) : 0;
    if (bytes) {
        made.packed = Memory(bytes);
        mf_pack(&p.matrix, x_bits, made.packed.data());
        p.packed = made.packed.data();
    }
    own(made, native);
    finish(made, taps, map, unit);
}

// Copies, so that nobody can change what was checked. Not of what is packed and read by rows only.
void Weights::own(Product &made, const NativeMatrix &native) {
    mf_matrix &m = made.product.matrix;
    const bool read = !made.product.packed || m.by_columns;
    const auto copy = [read](Memory &memory, auto *&at, size_t bytes) {
        if (read && bytes) {
            memory = Memory(bytes);
            std::memcpy(memory.data(), at, bytes);
        }
        at = reinterpret_cast<std::remove_reference_t<decltype(at)>>(memory.data());
    };
    copy(made.codes, m.codes, native.code_bytes);
    copy(made.table, m.table, native.table_bytes);
    copy(made.multipliers, m.multipliers, native.multiplier_bytes);
    copy(made.index, m.index, native.index_bytes);
}

// Of floats.
void Weights::add_bias(Product &made, nb::handle bias) {
    if (!bias.is_none()) {
        made.bias = copy_of<float>(bias, made.product.out, "a bias must have one entry for each output");
        made.product.bias = made.bias.data();
    }
}

void Weights::add_floats(const Array<const float> &matrix, nb::handle bias, nb::handle taps,
                         uint32_t map, uint32_t unit) {
    require(matrix.ndim() == 2 && matrix.size() && matrix.size() >> 31 == 0, "a matrix [out, in]");
    Product made;
    mf_product &p = made.product;
    p.out = static_cast<uint32_t>(matrix.shape(0));
    p.inputs = static_cast<uint32_t>(matrix.shape(1));
    add_bias(made, bias);
    made.packed = Memory(mf_packed_f32_bytes(p.out, p.inputs));
    mf_pack_f32(matrix.data(), p.out, p.inputs, made.packed.data());
    p.packed = made.packed.data();
    finish(made, taps, map, unit);
}

void Weights::add_term_inputs(const Array<const float> &v, nb::handle index, uint32_t inputs,
                              nb::handle bias) {
    require(v.ndim() == 2 && v.size() && v.size() >> 31 == 0 && mf_finite_f32(v.data(), v.size()),
            "terms must be finite numbers [rows, kept]");
    Product made;
    made.form = Form::kTermInputs;
    made.kept = static_cast<uint32_t>(v.shape(1));
    made.width = 1;
    mf_product &p = made.product;
    p.out = static_cast<uint32_t>(v.shape(0));
    p.inputs = inputs;
    if (index.is_none()) {
        require(made.kept == inputs, "dense terms must have a number for each input");
    } else {
        Array<const uint32_t> array;
        require(nb::try_cast(index, array, false) && array.ndim() == 2 && array.shape(0) == p.out &&
                    array.shape(1) && v.shape(1) % array.shape(1) == 0,
                "places of terms must be uint32 [rows, blocks]");
        made.width = static_cast<uint32_t>(v.shape(1) / array.shape(1));
        made.kept = static_cast<uint32_t>(array.shape(1));
        require(inputs % made.width == 0, "blocks of terms must divide the inputs");
        for (size_t i = 0; i < array.size(); i++) {
            require(array.data()[i] < inputs / made.width, "a place of a term lies beyond the inputs");
            made.ascending = made.ascending && (i % made.kept == 0 || array.data()[i - 1] < array.data()[i]);
        }
        made.index = copy_of<uint32_t>(index, array.size(), "places");
    }
    add_bias(made, bias);
    made.codes = copy_of<float>(nb::cast(v), v.size(), "terms");
    finish(made, nb::none(), inputs, 1);
}

void Weights::add_term_outputs(const Array<const float> &u, nb::handle bias) {
    require(u.ndim() == 2 && u.size() && u.size() >> 31 == 0 && mf_finite_f32(u.data(), u.size()),
            "terms must be finite numbers [terms, out]");
    Product made;
    made.form = Form::kTermOutputs;
    mf_product &p = made.product;
    p.out = static_cast<uint32_t>(u.shape(1));
    p.inputs = static_cast<uint32_t>(u.shape(0));
    add_bias(made, bias);
    made.codes = copy_of<float>(nb::cast(u), u.size(), "terms");
    finish(made, nb::none(), p.inputs, 1);
}

void bind_weights(nb::module_ &m) {
    nb::class_<Weights>(m, "Weights")
        .def(nb::init<>())
        .def("add_codes", &Weights::add_codes, "matrix"_a, "x_bits"_a, "accumulator_bits"_a,
             "bias"_a.none(), "taps"_a.none(), "entering"_a, "unit"_a, "packed"_a = true)
        .def("add_floats", &Weights::add_floats, "matrix"_a.noconvert(), "bias"_a.none(),
             "taps"_a.none(), "entering"_a, "unit"_a)
        .def("add_term_inputs", &Weights::add_term_inputs, "v"_a.noconvert(), "index"_a.none(), "inputs"_a,
             "bias"_a.none())
        .def("add_term_outputs", &Weights::add_term_outputs, "u"_a.noconvert(), "bias"_a.none());
}
