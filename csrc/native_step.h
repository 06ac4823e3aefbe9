// The arguments of a step as Python's fast calls pass them.
#ifndef MODELFLEX_NATIVE_STEP_H
#define MODELFLEX_NATIVE_STEP_H

#include <nanobind/nanobind.h>

// The one of the arguments that says what progressive products may take.
struct Allowed {
    enum Kind { kTerms, kOperations, kDeadline } kind;
    nanobind::handle value;
};

struct StepArguments {
    PyObject *x = nullptr, *out = nullptr;
    Allowed allowed = {};
    bool limited = false;
};

// False, with a Python error, where they are none of a step.
bool read_step_arguments(PyObject *const *args, Py_ssize_t count, PyObject *names, StepArguments &read);

#endif
