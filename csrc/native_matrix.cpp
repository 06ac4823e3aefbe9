// The reference products of stored matrices for Python: what tests compare with exact integers.
#include "native_matrix.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <vector>

#include "matrix_tiles.h"
#include "native_arrays.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

template <typename T>
T field(nb::handle stored, const char *name) {
    T value;
    require(nb::try_cast(stored.attr(name), value, false), "a field of the matrix is out of range");
    return value;
}

// Where `name` stands among `names`, in the order of the enumeration in matrix.h.
template <size_t n>
uint8_t position(nb::handle stored, const char *name, const std::array<const char *, n> &names) {
    const auto wanted = field<std::string>(stored, name);
    const auto found = std::find(names.begin(), names.end(), wanted);
    require(found != names.end(), "unknown grid or layout");
    return static_cast<uint8_t>(found - names.begin());
}

// The array behind an attribute, of `bytes` bytes, which `value` keeps; NULL for None, which is only right
// if bytes is 0.
template <typename T>
const T *array(nb::handle stored, const char *name, uint64_t bytes, nb::object &value) {
    value = stored.attr(name);
    if (value.is_none()) {
        require(bytes == 0, "an array of the matrix is missing");
        return nullptr;
    }
    Array<const T> made;
    require(nb::try_cast(value, made, false), "an array of the matrix has another type or layout");
    require(made.nbytes() == bytes, "an array of the matrix has another size");
    return made.data();
}

uint64_t stream_bytes(uint64_t count, unsigned bits) { return (count * bits + 7) / 8; }

uint64_t index_count(const mf_matrix &m) {
    if (m.layout == MF_LAYOUT_N_M) {
        return static_cast<uint64_t>(m.rows) * m.row_codes;
    }
    return m.layout == MF_LAYOUT_BLOCKS ? static_cast<uint64_t>(m.rows / m.block_rows) * m.kept : 0;
}

// Whether the sizes agree with each other, in 64 bits.
bool sizes_agree(const mf_matrix &m) {
    const uint64_t codes = static_cast<uint64_t>(m.rows) * m.row_codes;
    const uint64_t out = m.out, inputs = m.inputs, block = m.block, kept = m.kept;
    if (!m.rows || !m.row_codes || !block || !m.block_rows || !m.rows_per_table || codes >> 31 ||
        m.rows % m.rows_per_table || (m.groups && m.row_codes % m.groups)) {
        return false;
    }
    switch (m.layout) {
    case MF_LAYOUT_DENSE:
        return m.rows == out && m.row_codes == inputs && block == 1;
    case MF_LAYOUT_CIRCULANT:
        return m.rows * block == out && m.row_codes == inputs && inputs % block == 0;
    case MF_LAYOUT_BLOCKS:
        return m.rows == out && m.row_codes == kept * block && inputs % block == 0 &&
               m.rows % m.block_rows == 0 && !m.by_columns;
    default:
        return m.rows == out && kept && m.row_codes % kept == 0 &&
               m.row_codes / kept * block == inputs && !m.by_columns;
    }
}

bool bits_in_range(const mf_matrix &m) {
    const unsigned least = m.grid == MF_GRID_SYMMETRIC || m.grid == MF_GRID_POWER ? 2 : 1;
    const unsigned most =
        m.grid == MF_GRID_SYMMETRIC ? MF_MAX_CODE_BITS : (m.grid == MF_GRID_POWER ? 5 : 8);
    return m.bits >= least && m.bits <= most && m.index_bits <= MF_MAX_INDEX_BITS;
}

bool index_in_range(const mf_matrix &m) {
    const uint32_t places = m.layout == MF_LAYOUT_N_M ? m.block : m.inputs / m.block;
    mf_bits reader = mf_bits_at(m.index, 0, m.index_bits);
    for (uint64_t i = index_count(m); i; i--) {
        if (mf_bits_next(&reader) >= places) {
            return false;
        }
    }
    return true;
}

// What a product is called with: a vector, or a map and where the matrix is applied to it.
template <typename T>
struct Call {
    NativeMatrix held;
    const int32_t *taps = nullptr;
    uint32_t positions = 1;
    std::vector<T> seen;

    Call(nb::handle stored, size_t inputs, const std::optional<Array<const int32_t>> &windows,
         size_t results)
        : held(as_native_matrix(stored)) {
        const mf_matrix &m = held.matrix;
        if (windows) {
            require(windows->ndim() == 2 && windows->shape(1) == m.inputs && windows->shape(0),
                    "taps must be [positions, inputs of the matrix]");
            taps = windows->data();
            positions = static_cast<uint32_t>(windows->shape(0));
            for (size_t i = 0; i < windows->size(); i++) {
                require(taps[i] < 0 || static_cast<size_t>(taps[i]) < inputs,
                        "a tap lies beyond the map");
            }
            seen.resize(m.inputs);
        } else {
            require(inputs == m.inputs, "x must have one entry for each input of the matrix");
        }
        require(results == static_cast<size_t>(m.out) * positions,
                "the result must have one entry for each output of the matrix and position");
    }
};

template <typename T, auto linear, auto linear_windows>
void matrix_linear(nb::handle stored, const Array<const int16_t> &x,
                   const std::optional<Array<const T>> &bias, const Array<T> &out,
                   const std::optional<Array<const int32_t>> &taps) {
    Call<int16_t> call(stored, x.size(), taps, out.size());
    const mf_matrix *m = &call.held.matrix;
    require(!bias || bias->size() == m->out, "bias must have one entry for each output");
    const T *start = bias ? bias->data() : nullptr;
    if (call.taps) {
        linear_windows(m, call.taps, call.positions, x.data(), call.seen.data(), start, out.data());
    } else {
        linear(m, x.data(), start, out.data());
    }
}

template <typename T, auto accumulate, auto accumulate_windows>
void matrix_accumulate(nb::handle stored, const Array<const int32_t> &delta,
                       const Array<const uint8_t> &mask, uint32_t mask_block,
                       const Array<T> &total,
                       const std::optional<Array<const int32_t>> &taps) {
    Call<int32_t> call(stored, delta.size(), taps, total.size());
    const mf_matrix *m = &call.held.matrix;
    require(mask_block >= 1, "mask_block must be at least 1");
    require(mask.size() == delta.size() / mask_block + (delta.size() % mask_block != 0),
            "mask must have one entry for each block of inputs");
    for (size_t i = 0; i < delta.size(); i++) {
        require(delta.data()[i] > -65536 && delta.data()[i] < 65536, "delta has at most 17 bits");
        require(delta.data()[i] == 0 || mask.data()[i / mask_block], "delta must be 0 where not sent");
    }
    if (call.taps) {
        accumulate_windows(m, call.taps, call.positions, delta.data(), call.seen.data(),
                           total.data());
    } else {
        accumulate(m, delta.data(), mask.data(), mask_block, total.data());
    }
}

}  // namespace

NativeMatrix as_native_matrix(nb::handle stored) {
    static const std::array<const char *, 5> grids = {"symmetric", "odd", "power", "levels", "signs"};
    static const std::array<const char *, 4> layouts = {"dense", "circulant", "blocks", "n_m"};
    mf_matrix m = {};
    m.out = field<uint32_t>(stored, "out");
    m.inputs = field<uint32_t>(stored, "inputs");
    m.rows = field<uint32_t>(stored, "rows");
    m.row_codes = field<uint32_t>(stored, "row_codes");
    m.block = field<uint32_t>(stored, "block");
    m.kept = field<uint32_t>(stored, "kept");
    m.block_rows = field<uint32_t>(stored, "block_rows");
    m.rows_per_table = field<uint32_t>(stored, "rows_per_table");
    m.groups = field<uint32_t>(stored, "groups");
    m.bits = field<uint8_t>(stored, "bits");
    m.index_bits = field<uint8_t>(stored, "index_bits");
    m.by_columns = field<bool>(stored, "by_columns");
    m.grid = position(stored, "grid", grids);
    m.layout = position(stored, "layout", layouts);
    require(sizes_agree(m) && bits_in_range(m), "the sizes of the matrix contradict each other");
    const bool tables = m.grid == MF_GRID_LEVELS || m.grid == MF_GRID_SIGNS;
    const uint64_t entries = m.grid == MF_GRID_SIGNS ? m.bits : uint64_t{1} << m.bits;
    NativeMatrix made = {};
    made.code_bytes = stream_bytes(static_cast<uint64_t>(m.rows) * m.row_codes, m.bits);
    made.table_bytes = tables ? m.rows / m.rows_per_table * entries : 0;
    made.multiplier_bytes =
        stream_bytes(static_cast<uint64_t>(m.rows) * m.groups, MF_MULTIPLIER_BITS);
    made.index_bytes = stream_bytes(index_count(m), m.index_bits);
    m.codes = array<uint8_t>(stored, "codes", made.code_bytes, made.keep[0]);
    m.table = array<int8_t>(stored, "table", made.table_bytes, made.keep[1]);
    m.multipliers = array<uint8_t>(stored, "multipliers", made.multiplier_bytes, made.keep[2]);
    m.index = array<uint8_t>(stored, "index", made.index_bytes, made.keep[3]);
    require((m.groups != 0) == (m.multipliers != nullptr), "multipliers and groups contradict");
    require(index_in_range(m), "an index leads out of the matrix");
    made.matrix = m;
    return made;
}

void bind_matrix(nb::module_ &m) {
    m.def("matrix_linear", &matrix_linear<int32_t, mf_linear_i32, mf_linear_windows_i32>,
          "matrix"_a, "x"_a.noconvert(), "bias"_a.noconvert().none(), "out"_a.noconvert(),
          "taps"_a.noconvert().none() = nb::none());
    m.def("matrix_linear", &matrix_linear<int64_t, mf_linear_i64, mf_linear_windows_i64>,
          "matrix"_a, "x"_a.noconvert(), "bias"_a.noconvert().none(), "out"_a.noconvert(),
          "taps"_a.noconvert().none() = nb::none());
    m.def("matrix_accumulate",
          &matrix_accumulate<int32_t, mf_accumulate_i32, mf_accumulate_windows_i32>, "matrix"_a,
          "delta"_a.noconvert(), "mask"_a.noconvert(), "mask_block"_a, "total"_a.noconvert(),
          "taps"_a.noconvert().none() = nb::none());
    m.def("matrix_accumulate",
          &matrix_accumulate<int64_t, mf_accumulate_i64, mf_accumulate_windows_i64>, "matrix"_a,
          "delta"_a.noconvert(), "mask"_a.noconvert(), "mask_block"_a, "total"_a.noconvert(),
          "taps"_a.noconvert().none() = nb::none());
}
