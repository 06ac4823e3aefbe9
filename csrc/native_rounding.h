// Rounding column by column, for core/gptq.py.
#ifndef MODELFLEX_NATIVE_ROUNDING_H
#define MODELFLEX_NATIVE_ROUNDING_H

#include <nanobind/nanobind.h>

void bind_rounding(nanobind::module_ &m);

#endif
