// What fitting and pricing recipes need: rounding column by column (core/gptq.py) and what encoders would
// have sent of a trace (activities/delta.py).
#ifndef MODELFLEX_NATIVE_FITTING_H
#define MODELFLEX_NATIVE_FITTING_H

#include <nanobind/nanobind.h>

void bind_replay(nanobind::module_ &m);
void bind_rounding(nanobind::module_ &m);

#endif
