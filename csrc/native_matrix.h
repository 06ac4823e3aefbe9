// A core.stored_matrix.StoredMatrix of Python as the mf_matrix of the kernels.
#ifndef MODELFLEX_NATIVE_MATRIX_H
#define MODELFLEX_NATIVE_MATRIX_H

#include <nanobind/nanobind.h>

#include "matrix.h"

// The kernels' view of a StoredMatrix; it points into the arrays, which `keep` holds alive.
struct NativeMatrix {
    mf_matrix matrix;
    size_t code_bytes, table_bytes, multiplier_bytes, index_bytes;
    nanobind::object keep[4];
};

// Raises ValueError (std::invalid_argument) where arrays are shorter than the numbers say or an index
// leads out of the matrix, so that no product reads beyond a buffer.
NativeMatrix as_native_matrix(nanobind::handle stored);

void bind_matrix(nanobind::module_ &m);
void bind_packed(nanobind::module_ &m);

#endif
