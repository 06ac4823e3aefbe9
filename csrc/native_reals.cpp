#include "native_reals.h"

#include <cstdint>
#include <cstring>
#include <stdexcept>

namespace nb = nanobind;

namespace {

// The head of numpy's array objects, which its binary interface fixes. Reading it takes a tenth of the time that the
// buffer protocol takes. Nothing is read where an array turns out to be laid out in another way.
struct ArrayObject {
    PyObject_HEAD
    char *data;
    int nd;
    Py_ssize_t *dimensions, *strides;
    PyObject *base, *descr;
    int flags;
};
constexpr int kContiguous = 0x1, kAligned = 0x100, kWritable = 0x400;

struct Numpy {
    PyObject *empty = nullptr, *types[2] = {}; // of float32 and float64
    PyTypeObject *array = nullptr;             // null: arrays are not read directly

    Numpy() {
        const nb::module_ numpy = nb::module_::import_("numpy");
        types[0] = nb::object(numpy.attr("dtype")("float32")).release().ptr();
        types[1] = nb::object(numpy.attr("dtype")("float64")).release().ptr();
        empty = nb::object(numpy.attr("empty")).release().ptr();
#ifndef PYPY_VERSION
        const nb::object type = numpy.attr("ndarray");
        array = reinterpret_cast<PyTypeObject *>(type.ptr());
        if (static_cast<size_t>(array->tp_basicsize) < sizeof(ArrayObject) || !is_as_expected()) {
            array = nullptr;
        } else {
            nb::object(type).release(); // kept, as the others are
        }
#endif
    }

    bool is_as_expected() const {
        const nb::object shape = nb::make_tuple(2, 3);
        PyObject *args[] = {shape.ptr(), types[0]};
        const nb::object made = nb::steal(PyObject_Vectorcall(empty, args, 2, nullptr));
        if (!made) { // no memory
            PyErr_Clear();
            return false;
        }
        const auto *a = reinterpret_cast<const ArrayObject *>(made.ptr());
        const auto data = nb::cast<uintptr_t>(made.attr("ctypes").attr("data"));
        const int flags = nb::cast<int>(made.attr("flags").attr("num"));
        const int wanted = kContiguous | kAligned | kWritable;
        return a->nd == 2 && a->descr == types[0] && reinterpret_cast<uintptr_t>(a->data) == data &&
               a->flags == flags && (flags & wanted) == wanted && a->dimensions[0] == 2 &&
               a->dimensions[1] == 3;
    }
};

// Made when the module is loaded: a static local variable would have threads wait for its maker, which waits for the
// interpreter's lock that they hold. Never freed: the interpreter may end before.
const Numpy *numpy = nullptr;

char native_order() {
    const uint16_t one = 1;
    uint8_t first;
    std::memcpy(&first, &one, 1);
    return first ? '<' : '>';
}

[[noreturn]] void fail(const char *name, const std::string &found) {
    throw std::invalid_argument(std::string(name) + " " + found +
                                "; expected a C-contiguous array of float32 or float64 in "
                                "this machine's byte order");
}

}  // namespace

void load_numpy() {
    if (!numpy) {
        numpy = new Numpy;
    }
}

// Arrays of exactly numpy's type, and types of numbers that are numpy's own: others take the long way.
bool Reals::read_numpy(PyObject *object, bool writable) {
    const Numpy &np = *numpy;
    if (Py_TYPE(object) != np.array) {
        return false;
    }
    const auto *a = reinterpret_cast<const ArrayObject *>(object);
    const int wanted = kContiguous | kAligned | (writable ? kWritable : 0);
    wide_ = a->descr == np.types[1];
    data_ = a->data;
    ndim_ = a->nd;
    shape_ = a->dimensions;
    return (a->flags & wanted) == wanted && (wide_ || a->descr == np.types[0]);
}

void Reals::read_buffer(PyObject *object, const char *name, bool writable) {
    const int flags = PyBUF_FORMAT | PyBUF_C_CONTIGUOUS | (writable ? PyBUF_WRITABLE : 0);
    if (PyObject_GetBuffer(object, &view_, flags)) {
        PyErr_Clear();
        fail(name, "is no C-contiguous array that can be used in place");
    }
    if (PyObject_HasAttrString(object, "mask") == 1) {  // numpy.ma: its buffer has what the mask hides
        PyBuffer_Release(&view_);
        throw std::invalid_argument(std::string(name) +
                                    " is a masked array; expected an array without a mask");
    }
    const char *format = view_.format ? view_.format : "B";
    format += *format == '@' || *format == '=' || *format == native_order();
    wide_ = *format == 'd';
    if ((*format != 'f' && !wide_) || format[1]) {
        const std::string found = view_.format ? view_.format : "bytes";
        PyBuffer_Release(&view_);
        fail(name, "has the type '" + found + "'");
    }
    if (reinterpret_cast<uintptr_t>(view_.buf) % static_cast<size_t>(view_.itemsize)) {
        PyBuffer_Release(&view_);
        fail(name, "lies between two elements of its type");
    }
    held_ = true;
    data_ = view_.buf;
    ndim_ = view_.ndim;
    shape_ = view_.shape;
}

std::string Reals::shape_text() const {
    std::string text = "[";
    for (int i = 0; i < ndim_; i++) {
        text += (i ? ", " : "") + std::to_string(shape_[i]);
    }
    return text + "]";
}

nb::object new_array(size_t rows, size_t columns, bool matrix, bool wide) {
    const nb::object shape = matrix ? nb::object(nb::make_tuple(rows, columns))
                                    : nb::object(nb::int_(columns));
    PyObject *args[] = {shape.ptr(), numpy->types[wide]};
    PyObject *made = PyObject_Vectorcall(numpy->empty, args, 2, nullptr);
    if (!made) {
        nb::raise_python_error(); // of memory, for example
    }
    return nb::steal(made);
}
