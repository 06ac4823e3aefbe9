// Arrays of real numbers that callers pass, used in place.
#ifndef MODELFLEX_NATIVE_REALS_H
#define MODELFLEX_NATIVE_REALS_H

#include <nanobind/nanobind.h>

#include <cstddef>
#include <string>

#include "plan.h"

// To be called before all else here, when the module is loaded.
void load_numpy();

// A C-contiguous array of native float32 or float64, of up to two dimensions where it is of any use. Raises ValueError
// (std::invalid_argument) for anything else. The caller holds a reference to the object.
class Reals {
  public:
    Reals(PyObject *object, const char *name, bool writable) {
        if (!read_numpy(object, writable)) {
            read_buffer(object, name, writable);
        }
    }
    ~Reals() {
        if (held_) {
            PyBuffer_Release(&view_);
        }
    }
    Reals(const Reals &) = delete;
    Reals &operator=(const Reals &) = delete;

    bool wide() const { return wide_; }
    void *data() const { return data_; }
    int ndim() const { return ndim_; }
    size_t shape(int axis) const { return static_cast<size_t>(shape_[axis]); }
    std::string shape_text() const;
    bool is_finite(size_t n) const {
        return wide_ ? mf_finite_f64(static_cast<const double *>(data_), n)
                     : mf_finite_f32(static_cast<const float *>(data_), n);
    }

  private:
    bool read_numpy(PyObject *object, bool writable);
    void read_buffer(PyObject *object, const char *name, bool writable);

    void *data_ = nullptr;
    const Py_ssize_t *shape_ = nullptr;
    int ndim_ = 0;
    bool wide_ = false, held_ = false;
    Py_buffer view_;
};

// An array of numpy, [rows, columns] or [columns], not filled.
nanobind::object new_array(size_t rows, size_t columns, bool matrix, bool wide);

#endif
