// Arrays of Python as the bindings take them.
#ifndef MODELFLEX_NATIVE_ARRAYS_H
#define MODELFLEX_NATIVE_ARRAYS_H

#include <nanobind/ndarray.h>

#include <stdexcept>

template <typename T>
using Array = nanobind::ndarray<T, nanobind::c_contig, nanobind::device::cpu>;

// A ValueError in Python.
inline void require(bool condition, const char *message) {
    if (!condition) {
        throw std::invalid_argument(message);
    }
}

#endif
