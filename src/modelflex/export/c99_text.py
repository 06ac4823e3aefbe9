"""The files of an exported model that are made from its plan."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from modelflex.core.plan import ITEM_BYTES, Plan
from modelflex.export.c99_calls import MEMBERS, CallPrinter
from modelflex.export.c99_constants import C_TYPES
from modelflex.export.c99_terms import declarations, functions, term_products, tests
from modelflex.export.golden import TOLERANCE, Golden
from modelflex.export.names import numbers

STACK_BYTES: Final = 1536
"""What a step takes on the stack at most, kernels included; a test measures it."""
ALIGNMENT: Final = 8
"""Bytes: that of the widest type in a plan."""
_WIDTH: Final = 100


@dataclass(frozen=True)
class Sizes:
    """Bytes of an exported model: constants; an instance, of which carried state; stack of a step."""

    flash: int
    ram: int
    state: int
    stack: int = STACK_BYTES


def sizes(printer: CallPrinter) -> Sizes:
    """The sizes; all calls must have been printed."""
    state = _round(sum(buffer.nbytes for _, buffer in printer.state()))
    scratch = max(_round(printer.plan.scratch_bytes), ALIGNMENT)
    return Sizes(printer.constants.nbytes, state + printer.plan.seen_bytes + scratch, state)


def _round(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def header(printer: CallPrinter, digest: str) -> str:
    """NAME.h: sizes, the instance, and the three functions.

    `digest` (8 hexadecimal digits) tells models apart: two that have the same macros, as their names differ
    in nothing or in case only, are refused where both headers are included.
    """
    symbol, plan, found = printer.symbol, printer.plan, sizes(printer)
    guard, real = f"{symbol.upper()}_H", C_TYPES[_real(plan)]
    stage = "at every step" if plan.per_step else "after the last step, or whenever it is wanted"
    return f"""\
/* {symbol}: a network made by modelflex. No heap, no recursion, no global variables.
 *
 *     static {symbol}_instance net;
 *     {symbol}_init(&net);
 *     {symbol}_step(&net, x, y);      once for each time step
 *     {symbol}_reset(&net);           before another sequence
 *
 * Any number of instances may be used, in several threads if each has its own.
 */
#ifndef {guard}
#define {guard}

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

/* What tells this model from others. */
#define {symbol.upper()}_MODEL 0x{digest}u

#define {symbol.upper()}_INPUTS {plan.inputs}
#define {symbol.upper()}_OUTPUTS {plan.outputs}

/* Constants: weights, indices, multipliers, thresholds, biases, tables. Code comes on top. */
#define {symbol.upper()}_FLASH_BYTES {found.flash}
/* One instance; of that, what is carried from step to step. */
#define {symbol.upper()}_RAM_BYTES {found.ram}
#define {symbol.upper()}_STATE_BYTES {found.state}
/* The most that a call takes on the stack{_without(plan)}. */
#define {symbol.upper()}_STACK_BYTES {found.stack}

{_real_type(plan, symbol, real)}

typedef struct {{
{_instance(printer)}}} {symbol}_instance;

/* Makes an instance ready; what it held before is lost. */
void {symbol}_init({symbol}_instance *m);

/* Sets the state to that before the first step of a sequence. */
void {symbol}_reset({symbol}_instance *m);

/* One time step: reads x[{symbol.upper()}_INPUTS], writes y[{symbol.upper()}_OUTPUTS] unless y is NULL.
 * This network is asked for its output {stage}. */
void {symbol}_step({symbol}_instance *m, const {symbol}_real *x, {symbol}_real *y);
{declarations(plan, symbol)}
#ifdef __cplusplus
}}
#endif

#elif {symbol.upper()}_MODEL != 0x{digest}u
#error "Two models have macros {symbol.upper()}_*: export one of them again with another --name"
#endif
"""


def _without(plan: Plan) -> str:
    return "" if plan.numeric == "integer" else ", without that of libm's functions"


def _real_type(plan: Plan, symbol: str, real: str) -> str:
    if plan.numeric == "float":
        return f"typedef {real} {symbol}_real;"
    return (
        "/* Real values with 16 fractional bits: v stands for v / 65536. The input x is\n"
        " * x * 65536, rounded to the nearest whole number (ties to even), limited to 32 bits. */\n"
        f"#define {symbol.upper()}_FRACTION_BITS 16\n"
        f"typedef {real} {symbol}_real;"
    )


def _real(plan: Plan) -> str:
    return "int32" if plan.numeric == "integer" else "float32"


def _instance(printer: CallPrinter) -> str:
    lines = []
    if printer.state():
        lines.append("    struct {")
        for name, buffer in printer.state():
            lines.append(f"        {C_TYPES[buffer.dtype]} {name}[{buffer.size}];")
        lines.append("    } state;")
    if printer.plan.seen_bytes:
        lines += _union("seen", ("int32", "int16"), printer.plan.seen_bytes)
    used = {b.dtype for b in printer.plan.buffers if b.space == "scratch"} | {"int64"}
    scratch = max(_round(printer.plan.scratch_bytes), ALIGNMENT)
    lines += _union("scratch", [dtype for dtype in MEMBERS if dtype in used], scratch)
    return "".join(f"{line}\n" for line in lines)


def _union(name: str, dtypes: Iterable[str], nbytes: int) -> list[str]:
    members = [f"        {C_TYPES[d]} {MEMBERS[d]}[{nbytes // ITEM_BYTES[d]}];" for d in dtypes]
    return ["    union {", *members, f"    }} {name};"]


def source(printer: CallPrinter) -> str:
    """NAME.c: the plan as calls of the kernels."""
    symbol, plan = printer.symbol, printer.plan
    bodies = [_stage(printer, number) for number in range(len(plan.stages))]
    resets = "".join(
        f"    {printer.reset(slot)}\n"
        for stage in plan.stages
        if stage.mode == "step"
        for slot in stage.state
    )
    includes = [f"{symbol}.h", *sorted(f"{symbol}_{h}" for h in printer.headers)]
    step = (
        f"    memcpy({printer.at(plan.stages[0].x)}, x, {symbol.upper()}_INPUTS * sizeof *x);\n"
        f"{_steps(printer)}"
    )
    included = "".join(f'#include "{file}"\n' for file in [*includes, f"{symbol}_weights.h"])
    return f"""\
{included}
#include <string.h>

MF_ASSERT(ram, sizeof({symbol}_instance) <= {symbol.upper()}_RAM_BYTES);

{"".join(f"{text}{chr(10)}" for text in printer.matrices.values())}\
{chr(10).join(bodies)}
void {symbol}_init({symbol}_instance *m) {{
    memset(m, 0, sizeof *m);
    {symbol}_reset(m);
}}

void {symbol}_reset({symbol}_instance *m) {{
{resets or "    (void)m;" + chr(10)}}}
{functions(plan, symbol, step)}"""


def _stage(printer: CallPrinter, number: int) -> str:
    stage = printer.plan.stages[number]
    lines = printer.stage(stage)
    if stage.mode == "once":
        lines = [*(printer.reset(slot) for slot in stage.state), *lines]
    body = "".join(f"{_wrapped(line)}\n" for line in lines)
    symbol = printer.symbol
    limits = ""
    if term_products(printer.plan):
        limits = f", const {symbol}_mf_budget *budget"
        body += "" if "budget" in body else "    (void)budget;\n"
    return f"static void stage_{number}({symbol}_instance *m{limits}) {{\n{body}}}\n"


def _wrapped(line: str) -> str:
    """A statement, indented, on as many lines as it needs."""
    return textwrap.fill(
        line,
        _WIDTH,
        initial_indent=" " * 4,
        subsequent_indent=" " * 8,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _steps(printer: CallPrinter) -> str:
    """The stages of a step; those that run once a sequence and the copy only where there is a y."""
    stages = list(enumerate(printer.plan.stages))
    given = "m, budget" if term_products(printer.plan) else "m"
    always = "".join(f"    stage_{n}({given});\n" for n, stage in stages if stage.mode == "step")
    last = "".join(f"        stage_{n}({given});\n" for n, stage in stages if stage.mode == "once")
    y = printer.at(printer.plan.stages[-1].y)
    copy = f"        memcpy(y, {y}, {printer.symbol.upper()}_OUTPUTS * sizeof *y);\n"
    return f"{always}    if (y) {{\n{last}{copy}    }}\n"


def weights_header(printer: CallPrinter, common: str) -> str:
    """NAME_weights.h, which is private to the sources."""
    guard = f"{printer.symbol.upper()}_WEIGHTS_H"
    return (
        f'#ifndef {guard}\n#define {guard}\n\n#include "{common}"\n\n'
        f"{printer.constants.declarations()}\n#endif\n"
    )


def weights_source(printer: CallPrinter) -> str:
    """NAME_weights.c: all constants; each states its size, and the sizes add up to those of the header."""
    symbol = printer.symbol
    return (
        f'#include "{symbol}_weights.h"\n\n#include "{symbol}.h"\n\n'
        f"{printer.constants.definitions()}"
    )


def selftest(printer: CallPrinter, vectors: Golden) -> str:
    """NAME_selftest.c: two instances, one behind the other, must give the golden outputs."""
    symbol, plan = printer.symbol, printer.plan
    real, steps = C_TYPES[_real(plan)], vectors.inputs.shape[0]
    differs = "found[i] != expected[t * OUTPUTS + i]"
    if plan.numeric == "float":
        differs = "!near(found[i], expected[t * OUTPUTS + i])"
    return f"""\
/* Golden vectors of {symbol}: ends with 0 if every output of {steps} steps is as expected. */
#include <stdio.h>

#include "{symbol}.h"

enum {{ STEPS = {steps}, LATER = 7, INPUTS = {symbol.upper()}_INPUTS, OUTPUTS = {symbol.upper()}_OUTPUTS }};

static const {real} inputs[] = {{
{numbers(vectors.inputs)}
}};

static const {real} expected[] = {{
{numbers(vectors.outputs)}
}};

typedef char input_sizes[sizeof inputs == sizeof inputs[0] * STEPS * INPUTS ? 1 : -1];
typedef char output_sizes[sizeof expected == sizeof expected[0] * STEPS * OUTPUTS ? 1 : -1];

static {symbol}_instance first, second;
{_NEAR if plan.numeric == "float" else ""}
/* How many outputs of step t differ. */
static int step({symbol}_instance *m, int t) {{
    static {symbol}_real found[OUTPUTS];
    int failed = 0;
    {symbol}_step(m, inputs + t * INPUTS, found);
    for (int i = 0; i < OUTPUTS; i++) {{
        failed += {differs};
    }}
    return failed;
}}
{tests(plan, symbol, vectors, real, differs)}
int main(void) {{
    int failed = 0;
    {symbol}_init(&first);
    {symbol}_init(&second);
    for (int t = 0; t < STEPS + LATER; t++) {{
        failed += t < STEPS ? step(&first, t) : 0;
        failed += t >= LATER ? step(&second, t - LATER) : 0;
    }}
    {symbol}_reset(&first);
    for (int t = 0; t < LATER; t++) {{
        failed += step(&first, t);
    }}
{"    failed += limited();" + chr(10) if vectors.limited else ""}\
    printf("{symbol}: %d steps, %d outputs differ\\n", STEPS, failed);
    return failed != 0;
}}
"""


_NEAR: Final = f"""
static int near(float found, float wanted) {{
    const float size = wanted < 0 ? -wanted : wanted;
    const float limit = {TOLERANCE:g}f * (size > 1.0f ? size : 1.0f), difference = found - wanted;
    return difference <= limit && -difference <= limit;
}}
"""


def makefile(symbol: str, sources: Iterable[str], libm: bool) -> str:
    """`make` builds the self-test, `make test` runs it, `make library` makes a static library."""
    objects = [f"build/{file.removesuffix('.c')}.o" for file in sorted(sources)]
    return f"""\
# make: the self-test; make test: run it; make library: build/lib{symbol}.a.
# CC, AR, CFLAGS and LDFLAGS may be given.
CC ?= cc
AR ?= ar
CFLAGS ?= -O2
STANDARD := -std=c99 -pedantic -Wall -Wextra
OBJECTS := {" ".join(objects)}

.PHONY: all test library clean
all: build/{symbol}_selftest
library: build/lib{symbol}.a

test: all
	./build/{symbol}_selftest

build/%.o: %.c $(wildcard *.h)
	@mkdir -p build
	$(CC) $(STANDARD) $(CFLAGS) -c $< -o $@

build/lib{symbol}.a: $(OBJECTS)
	$(AR) rcs $@ $^

build/{symbol}_selftest: build/{symbol}_selftest.o $(OBJECTS)
	$(CC) $(CFLAGS) $^ $(LDFLAGS) {"-lm " if libm else ""}-o $@

clean:
	rm -rf build
"""
