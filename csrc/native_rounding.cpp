// Columns rounded one after another: checks types, layouts and sizes, releases the interpreter's lock.
#include "native_fitting.h"

#include <nanobind/stl/optional.h>

#include <optional>

#include "column_rounding.h"
#include "native_arrays.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Numbers = Array<const double>;
using Results = Array<double>;

bool is_matrix(const Numbers &a, size_t rows, size_t columns) {
    return a.ndim() == 2 && a.shape(0) == rows && a.shape(1) == columns;
}

bool is_matrix(const Results &a, size_t rows, size_t columns) {
    return a.ndim() == 2 && a.shape(0) == rows && a.shape(1) == columns;
}

mf_column_chunk as_chunk(const Results &values, const Numbers &shares, const Numbers &steps, int top,
                         bool odd, const std::optional<Numbers> &mask) {
    require(values.ndim() == 2, "values must be [columns, rows]");
    const size_t columns = values.shape(0), rows = values.shape(1);
    require(is_matrix(shares, columns, columns), "shares must be [columns, columns]");
    require(is_matrix(steps, 1, rows) || is_matrix(steps, columns, rows),
            "steps must be [1 or columns, rows]");
    require(top >= 1, "top must be at least 1");
    require(!mask || is_matrix(*mask, columns, rows), "mask must be [columns, rows]");
    return {columns, rows, shares.data(), columns, mask ? mask->data() : nullptr,
            {top, odd, steps.data(), steps.shape(0) == 1 ? 0 : rows}};
}

void round_columns(const Results &values, const Numbers &shares, const Numbers &steps, int top,
                   bool odd, const std::optional<Numbers> &mask, const Results &changes) {
    const mf_column_chunk chunk = as_chunk(values, shares, steps, top, odd, mask);
    require(is_matrix(changes, chunk.columns, chunk.rows), "changes must have the shape of values");
    nb::gil_scoped_release unlocked;
    mf_round_columns(&chunk, values.data(), changes.data());
}

void descend_columns(const Results &values, const Numbers &pulls, const Numbers &own,
                     const Numbers &shares, const Numbers &steps, int top, bool odd,
                     const std::optional<Numbers> &mask, const Results &changes) {
    const mf_column_chunk chunk = as_chunk(values, shares, steps, top, odd, mask);
    require(is_matrix(pulls, chunk.columns, chunk.rows), "pulls must have the shape of values");
    require(own.size() == chunk.columns, "own must have an entry a column");
    require(is_matrix(changes, chunk.columns, chunk.rows), "changes must have the shape of values");
    nb::gil_scoped_release unlocked;
    mf_descend_columns(&chunk, pulls.data(), own.data(), values.data(), changes.data());
}

void step_errors(const Numbers &values, const Numbers &weights, const Numbers &sizes, int top, bool odd,
                 const Results &errors) {
    require(values.ndim() == 2, "values must be [groups, n]");
    const size_t groups = values.shape(0), n = values.shape(1), count = sizes.size();
    require(is_matrix(weights, groups, n), "weights must have the shape of values");
    require(is_matrix(errors, groups, count), "errors must be [groups, sizes]");
    require(top >= 1, "top must be at least 1");
    nb::gil_scoped_release unlocked;
    for (size_t g = 0; g < groups; g++) {
        mf_step_errors(values.data() + g * n, weights.data() + g * n, n, sizes.data(), count, top, odd,
                       errors.data() + g * count);
    }
}

}  // namespace

void bind_rounding(nb::module_ &m) {
    m.def("round_columns", &round_columns, "values"_a.noconvert(), "shares"_a.noconvert(),
          "steps"_a.noconvert(), "top"_a, "odd"_a, "mask"_a.noconvert().none(),
          "changes"_a.noconvert());
    m.def("descend_columns", &descend_columns, "values"_a.noconvert(), "pulls"_a.noconvert(),
          "own"_a.noconvert(), "shares"_a.noconvert(), "steps"_a.noconvert(), "top"_a, "odd"_a,
          "mask"_a.noconvert().none(), "changes"_a.noconvert());
    m.def("step_errors", &step_errors, "values"_a.noconvert(), "weights"_a.noconvert(),
          "sizes"_a.noconvert(), "top"_a, "odd"_a, "errors"_a.noconvert());
}
