#include "native_step.h"

bool read_step_arguments(PyObject *const *args, Py_ssize_t count, PyObject *names, StepArguments &read) {
    constexpr const char *kNames[] = {"terms", "budget", "deadline_s", "x", "out"}; // first as Allowed::Kind has them
    PyObject *given[5] = {nullptr, nullptr, nullptr, count > 0 ? args[0] : nullptr, count > 1 ? args[1] : nullptr};
    const Py_ssize_t named = names ? PyTuple_GET_SIZE(names) : 0;
    bool known = count <= 2;
    for (Py_ssize_t i = 0; i < named && known; i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        size_t at = 0;
        while (at < 5 && PyUnicode_CompareWithASCIIString(name, kNames[at]) != 0) {
            at++;
        }
        known = at < 5 && !given[at];
        if (known) {
            given[at] = args[count + i];
        }
    }
    read.x = given[3];
    read.out = given[4] ? given[4] : Py_None;
    size_t limits = 0;
    for (const auto kind : {Allowed::kTerms, Allowed::kOperations, Allowed::kDeadline}) {
        if (given[kind] && given[kind] != Py_None) {
            read.allowed = {kind, given[kind]};
            read.limited = true;
            limits++;
        }
    }
    if (!known || !read.x) {
        PyErr_SetString(PyExc_TypeError, "step takes x and, if wanted, out and one of terms, budget and deadline_s");
        return false;
    }
    if (limits > 1) {
        PyErr_SetString(PyExc_ValueError, "a step has several limits; expected one of terms, budget and deadline_s");
        return false;
    }
    return true;
}
