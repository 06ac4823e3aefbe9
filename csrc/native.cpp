// modelflex._native: the C99 kernels for NumPy arrays. Checks types, layouts and sizes, releases
// the interpreter's lock, and calls; results go to `out` arrays of the caller.
#include <nanobind/nanobind.h>

#include "elementwise.h"
#include "fixed_point.h"
#include "native_arrays.h"
#include "native_matrix.h"
#include "native_plan.h"
#include "native_fitting.h"
#include "piecewise.h"
#include "read_loop.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

template <typename A, typename B>
void require_same_shape(const A &a, const B &b, const char *message) {
    require(a.ndim() == b.ndim(), message);
    for (size_t i = 0; i < a.ndim(); i++) {
        require(a.shape(i) == b.shape(i), message);
    }
}

void require_shift(int s) {
    require(s >= -MF_MAX_SHIFT && s <= MF_MAX_SHIFT, "shift must be from -62 to 62");
}

// An array as rows of its last axis.
struct Rows {
    size_t rows, columns;
};

template <typename A>
Rows as_rows(const A &a) {
    require(a.ndim() >= 1, "arrays need at least one axis");
    const size_t columns = a.shape(a.ndim() - 1);
    return {columns ? a.size() / columns : 0, columns};
}

void quantize(const Array<const int32_t> &v, int32_t mu, int s, int bits,
              const Array<int16_t> &out) {
    require_same_shape(v, out, "out must have the shape of v");
    require_shift(s);
    require(bits >= 2 && bits <= 16, "bits must be from 2 to 16");
    nb::gil_scoped_release unlocked;
    mf_quantize(v.data(), v.size(), mu, s, bits, out.data());
}

template <typename T, void (*kernel)(const T *, size_t, size_t, const int32_t *, size_t, int,
                                     int32_t *)>
void rescale(const Array<const T> &acc, const Array<const int32_t> &mu, int s,
             const Array<int32_t> &out) {
    require_same_shape(acc, out, "out must have the shape of acc");
    require_shift(s);
    const Rows shape = as_rows(acc);
    require(mu.size() == 1 || mu.size() == shape.columns,
            "mu must have one entry, or one for each column of acc");
    nb::gil_scoped_release unlocked;
    kernel(acc.data(), shape.rows, shape.columns, mu.data(), mu.size(), s, out.data());
}

template <void (*kernel)(const int32_t *, const int32_t *, size_t, int32_t *)>
void binary(const Array<const int32_t> &a, const Array<const int32_t> &b,
            const Array<int32_t> &out) {
    require_same_shape(a, b, "a and b must have the same shape");
    require_same_shape(a, out, "out must have the shape of a");
    nb::gil_scoped_release unlocked;
    kernel(a.data(), b.data(), a.size(), out.data());
}

template <void (*kernel)(const int32_t *, size_t, const int32_t *, int32_t *)>
void lookup(const Array<const int32_t> &x, const Array<const int32_t> &table,
            const Array<int32_t> &out) {
    require_same_shape(x, out, "out must have the shape of x");
    require(table.size() == MF_TANH_ENTRIES, "table must have 257 entries");
    nb::gil_scoped_release unlocked;
    kernel(x.data(), x.size(), table.data(), out.data());
}

void piecewise(const Array<const int32_t> &x, const Array<const int32_t> &breaks,
               const Array<const int32_t> &values, const Array<const int32_t> &slopes,
               int32_t centre, const Array<int32_t> &out) {
    require_same_shape(x, out, "out must have the shape of x");
    const size_t segments = breaks.size();
    require(segments >= 1 && breaks.data()[0] == 0, "breaks must start with 0");
    require(values.size() == segments && slopes.size() == segments,
            "values and slopes must have one entry for each of breaks");
    require(slopes.data()[segments - 1] == 0, "the last slope must be 0");
    const mf_piecewise table = {breaks.data(), values.data(), slopes.data(), segments, centre};
    nb::gil_scoped_release unlocked;
    mf_piecewise_array(x.data(), x.size(), &table, out.data());
}

void delta_encode(const Array<const int16_t> &x, const Array<const int16_t> &x_hat, size_t block,
                  const Array<const int32_t> &theta, int overshoot, int bits,
                  const Array<int32_t> &delta, const Array<uint8_t> &mask,
                  const Array<int16_t> &sent) {
    require_same_shape(x, x_hat, "x_hat must have the shape of x");
    require_same_shape(x, delta, "delta must have the shape of x");
    require_same_shape(x, sent, "sent must have the shape of x");
    require(block >= 1, "block must be at least 1");
    require(overshoot >= 0 && overshoot < 256, "overshoot must be from 0 to 255");
    require(bits >= 2 && bits <= 16, "bits must be from 2 to 16");
    const Rows shape = as_rows(x);
    const Rows blocks = as_rows(mask);
    const size_t expected = shape.columns / block + (shape.columns % block != 0);
    require(blocks.columns == expected && mask.size() == shape.rows * expected,
            "mask must have one entry for each block of a row");
    require(theta.size() == expected, "theta must have one entry for each block of a row");
    nb::gil_scoped_release unlocked;
    mf_delta_encode(x.data(), x_hat.data(), shape.rows, shape.columns, block, theta.data(),
                    overshoot, bits, delta.data(), mask.data(), sent.data());
}

// The loop stands in another translation unit: no pass can be left out.
uint64_t read_loop(const Array<const uint64_t> &words, size_t passes) {
    nb::gil_scoped_release unlocked;
    uint64_t total = 0;
    for (size_t i = 0; i < passes; i++) {
        total += mf_read_loop(words.data(), words.size());
    }
    return total;
}

}  // namespace

// noconvert: an array of another type is an error, never silently copied (a copied `out` would
// lose the result).
NB_MODULE(_native, m) {
    m.doc() = "C99 kernels of the integer arithmetic (docs/arithmetic.md).";
    m.def("quantize", &quantize, "v"_a.noconvert(), "mu"_a, "s"_a, "bits"_a,
          "out"_a.noconvert());
    m.def("rescale", &rescale<int32_t, mf_rescale_i32>, "acc"_a.noconvert(), "mu"_a.noconvert(),
          "s"_a, "out"_a.noconvert());
    m.def("rescale", &rescale<int64_t, mf_rescale_i64>, "acc"_a.noconvert(), "mu"_a.noconvert(),
          "s"_a, "out"_a.noconvert());
    m.def("rescale", &rescale<float, mf_rescale_f32>, "acc"_a.noconvert(), "mu"_a.noconvert(),
          "s"_a, "out"_a.noconvert());
    m.def("rescale", &rescale<double, mf_rescale_f64>, "acc"_a.noconvert(), "mu"_a.noconvert(),
          "s"_a, "out"_a.noconvert());
    m.def("add", &binary<mf_add>, "a"_a.noconvert(), "b"_a.noconvert(), "out"_a.noconvert());
    m.def("sub", &binary<mf_sub>, "a"_a.noconvert(), "b"_a.noconvert(), "out"_a.noconvert());
    m.def("mul", &binary<mf_mul>, "a"_a.noconvert(), "b"_a.noconvert(), "out"_a.noconvert());
    m.def("tanh", &lookup<mf_tanh_array>, "x"_a.noconvert(), "table"_a.noconvert(),
          "out"_a.noconvert());
    m.def("sigmoid", &lookup<mf_sigmoid_array>, "x"_a.noconvert(), "table"_a.noconvert(),
          "out"_a.noconvert());
    m.def("piecewise", &piecewise, "x"_a.noconvert(), "breaks"_a.noconvert(),
          "values"_a.noconvert(), "slopes"_a.noconvert(), "centre"_a, "out"_a.noconvert());
    m.def("delta_encode", &delta_encode, "x"_a.noconvert(), "x_hat"_a.noconvert(), "block"_a,
          "theta"_a.noconvert(), "overshoot"_a, "bits"_a, "delta"_a.noconvert(),
          "mask"_a.noconvert(), "sent"_a.noconvert());
    bind_matrix(m);
    bind_packed(m);
    m.def("read_loop", &read_loop, "words"_a.noconvert(), "passes"_a);
    bind_weights(m);
    bind_plan(m);
    bind_runtime(m);
    bind_batch(m);
    bind_replay(m);
    bind_rounding(m);
}
