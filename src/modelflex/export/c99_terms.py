"""Exported steps within limits: functions, declarations and tests of models that have terms."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final

import numpy as np

from modelflex.core.plan import Plan
from modelflex.core.tracer import Product
from modelflex.execute.anytime import refinements
from modelflex.export.golden import Golden
from modelflex.export.names import numbers, remark

WHOLE: Final = 65536
"""MF_WHOLE of csrc/refine.h."""


def term_products(plan: Plan) -> list[tuple[Product, Product]]:
    """(V, U) of every weight that has terms, by the numbers of budgets."""
    return [(plan.products[v], plan.products[u]) for u, v in refinements(plan).items()]


def shares(plan: Plan) -> dict[str, int]:
    """Site of U → its part of the time that is left when it begins, in 1/65536: that of its work among its
    own and what follows.
    """
    found, later = {}, 0
    products = dict(refinements(plan))
    for call in reversed(plan.calls):
        if call.site in products and call.attrs.get("inner") == products[call.site]:
            kept = plan.products[products[call.site]].part.codes.size
            own = kept + plan.products[call.site].part.codes.size
            later += own
            found[call.site] = max(1, own * WHOLE // later)
    return found


def declarations(plan: Plan, symbol: str) -> str:
    """Of NAME.h; nothing where no weight has terms."""
    found = term_products(plan)
    if not found:
        return ""
    upper = symbol.upper()
    rows = "".join(
        f" *     {k}: {remark(u.weight)}, {u.geometry.inputs} terms\n"
        for k, (_, u) in enumerate(found)
    )
    return f"""
/* Weights that are sums of terms, of which the first are an answer already:
{rows} */
#define {upper}_REFINED {len(found)}

/* A step with at most terms[k] of the terms of weight k. Returns how many were used in all. */
uint32_t {symbol}_step_budget({symbol}_instance *m, const {symbol}_real *x, {symbol}_real *y,
                              const uint32_t terms[{upper}_REFINED]);

/* A step of which no term begins once clock(context) gives `deadline` or more; several weights share
 * the time that is left by their work. Whatever follows the last term comes on top: measure it with
 * deadline 0, which computes no terms. A clock that jumps does no harm. used[k] tells the terms of
 * weight k, unless it is NULL. Returns how many were used in all. */
uint32_t {symbol}_step_deadline({symbol}_instance *m, const {symbol}_real *x, {symbol}_real *y,
                                uint64_t (*clock)(void *context), void *context, uint64_t deadline,
                                uint32_t *used);
"""


def functions(plan: Plan, symbol: str, step: str) -> str:
    """Of NAME.c: the ways to make a step; `step` is what it consists of."""
    if not term_products(plan):
        return f"""
void {symbol}_step({symbol}_instance *m, const {symbol}_real *x, {symbol}_real *y) {{
{step}}}
"""
    budget, upper = f"{symbol}_mf_budget", symbol.upper()
    return f"""
static void limited_step({symbol}_instance *m, const {symbol}_real *x, {symbol}_real *y,
                         const {budget} *budget) {{
{step}}}

static uint32_t sum_of(const uint32_t *used) {{
    uint32_t sum = 0;
    for (int k = 0; k < {upper}_REFINED; k++) {{
        sum += used[k];
    }}
    return sum;
}}

void {symbol}_step({symbol}_instance *m, const {symbol}_real *x, {symbol}_real *y) {{
    limited_step(m, x, y, NULL);
}}

uint32_t {symbol}_step_budget({symbol}_instance *m, const {symbol}_real *x, {symbol}_real *y,
                              const uint32_t terms[{upper}_REFINED]) {{
    uint32_t used[{upper}_REFINED] = {{0}};
    const {budget} budget = {{terms, used, NULL, NULL, NULL, 0, NULL}};
    limited_step(m, x, y, &budget);
    return sum_of(used);
}}

uint32_t {symbol}_step_deadline({symbol}_instance *m, const {symbol}_real *x, {symbol}_real *y,
                                uint64_t (*clock)(void *context), void *context, uint64_t deadline,
                                uint32_t *used) {{
    uint32_t own[{upper}_REFINED] = {{0}};
    const {budget} budget = {{NULL, used ? used : own, NULL, clock, context, deadline, NULL}};
    limited_step(m, x, y, &budget);
    return sum_of(used ? used : own);
}}
"""


def tests(plan: Plan, symbol: str, vectors: Golden, real: str, differs: str) -> str:
    """Of NAME_selftest.c: the function `limited`, which counts outputs of steps within limits that differ."""
    if not vectors.limited:
        return ""
    refined = len(term_products(plan))
    limits = _rows([limits for limits, _ in vectors.limited])
    steps = vectors.limited[0][1].shape[0]
    text = numbers(np.concatenate([outputs for _, outputs in vectors.limited]))
    upper = symbol.upper()
    return f"""
enum {{ LIMITS = {len(vectors.limited)}, LIMITED_STEPS = {steps}, REFINED = {refined} }};

/* From none of the terms to all. */
static const uint32_t limits[LIMITS][{upper}_REFINED] = {{
{limits}
}};

static const {real} limited_outputs[] = {{
{text}
}};

static uint64_t tick(void *context) {{
    return ++*(uint64_t *)context;
}}

/* How many outputs of steps within limits differ. */
static int limited(void) {{
    static {symbol}_real found[OUTPUTS];
    const {real} *wanted = limited_outputs;
    int failed = 0;
    for (int k = 0; k < LIMITS; k++) {{
        {symbol}_reset(&first);
        for (int t = 0; t < LIMITED_STEPS; t++, wanted += OUTPUTS) {{
            const {real} *x = inputs + t * INPUTS;
            uint32_t used[REFINED], all = 0;
            uint64_t now = 0;
            for (int i = 0; i < REFINED; i++) {{
                all += limits[k][i];
            }}
            if (k == 0) {{ /* the deadline has passed */
                failed += {symbol}_step_deadline(&first, x, found, tick, &now, 0, used) != 0;
            }} else if (k == LIMITS - 1) {{ /* it is never reached */
                const uint64_t never = UINT64_MAX;
                failed += {symbol}_step_deadline(&first, x, found, tick, &now, never, NULL) != all;
                failed += now < all;
            }} else {{
                failed += {symbol}_step_budget(&first, x, found, limits[k]) != all;
            }}
            for (int i = 0; i < OUTPUTS; i++) {{
                failed += {differs.replace("expected[t * OUTPUTS + i]", "wanted[i]")};
            }}
        }}
    }}
    return failed;
}}
"""


def _rows(rows: Sequence[Sequence[int]]) -> str:
    lines = [f"{{{', '.join(map(str, row))}}}" for row in rows]
    return textwrap.indent(",\n".join(lines), "    ")
