"""The tables of the report, as text with sort keys; the page and the terminal lay them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelflex.core.quality import Quality
from modelflex.core.trial import Trial
from modelflex.report.cells import Cell, Table, listed, number, records
from modelflex.report.text import (
    COST_LABELS,
    DASH,
    MORE_IS_BETTER,
    cost_field,
    divergence_metric,
    is_naive,
    label,
    limited_value,
    metric_name,
    naive_twin,
    qualities_of,
    ratio,
    show_change,
    show_cost,
    show_factor,
    show_interval,
    show_limit,
    show_limited,
    show_metric,
    show_miss,
    show_step,
    subject,
    task_metric,
)
from modelflex.search.study import Limit, Step, Study
from modelflex.units import show_quantity


def _quality(quality: Quality | None) -> Cell:
    if quality is None:
        return Cell(DASH, style="missing")
    return number(show_metric(quality.metric, quality.value), quality.value, show_interval(quality))


def comparison(study: Study) -> Table:
    """The uncompressed network, the pick and its naive twin; what nobody knows is left out."""
    title, pick = subject(study)
    twin = naive_twin(study)
    test = study.test if study.best is not None else {}
    rows = []
    for where, qualities in (
        ("validation", (study.baseline.validation, qualities_of(pick), qualities_of(twin))),
        ("test", (study.test.get("baseline", {}), test.get("best", {}), test.get("naive", {}))),
    ):
        for kind in ("metric", "divergence"):
            found = [q.get(kind) for q in qualities]
            known = [q for q in found if q is not None]
            if not known:
                continue
            name = metric_name(known[0].metric)
            head = Cell(f"{name[0].upper()}{name[1:]}, {where}", f"{known[0].n} sequences")
            change = show_change(found[0], found[1]) if kind == "metric" else DASH
            rows.append((head, *map(_quality, found), Cell(change, style="factor")))
    rows += _cost_rows(study, pick, twin)
    return Table(
        ("", "Uncompressed", title, "Naive twin", "Gain"), tuple(rows), frozenset({1, 2, 3, 4})
    )


def _cost_rows(study: Study, pick: Trial | None, twin: Trial | None) -> list[tuple[Cell, ...]]:
    rows = []
    costs = [study.baseline.cost, *(None if t is None else t.cost for t in (pick, twin))]
    for name, text in COST_LABELS.items():
        values = [None if c is None else cost_field(c, name) for c in costs]
        if all(v is None for v in values):
            continue
        before, after = values[:2] if name not in MORE_IS_BETTER else values[1::-1]
        gain = DASH if name == "coverage" else show_factor(ratio(before, after))
        notes = ["", "", ""]
        if name == "coverage":
            notes = ["" if c is None else c.unpriced or "" for c in costs]
        elif name == "state_bytes" and study.exported_state_bytes is not None:
            notes[1] = f"{show_quantity(study.exported_state_bytes, 'B')} in C"
        shown = [number(show_cost(name, v), v, n) for v, n in zip(values, notes, strict=True)]
        worse = before is not None and after is not None and before < after
        rows.append((Cell(text), *shown, Cell(gain, style="bad" if worse else "factor")))
    for text, field in (("Latency bound by", "bound"), ("Weights lie", "residency")):
        words = [None if c is None else getattr(c, field) for c in costs]
        if any(words):
            rows.append((Cell(text), *(number(w or DASH, None) for w in words), Cell("")))
    return rows


def limits(study: Study) -> Table:
    """Each limit, what the subject has, whether it is met, and by what margin."""
    title, trial = subject(study)
    rows = tuple(_limit_row(study, trial, limit) for limit in study.limits)
    return Table(("Limit", title, "Outcome", "Margin"), rows, frozenset({1, 3}))


def _limit_row(study: Study, trial: Trial | None, limit: Limit) -> tuple[Cell, ...]:
    value = None if trial is None else limited_value(study, trial, limit.field)
    head, shown = Cell(show_limit(study, limit)), show_limited(study, limit.field, value)
    if trial is None or value is None:
        return head, number(shown, value), Cell("not known", style="missing"), Cell(DASH)
    missed = [v for v in trial.violations if (v.field, v.kind) == (limit.field, limit.kind)]
    if missed:
        return head, number(shown, value), Cell("missed", style="bad"), Cell(show_miss(missed[0]))
    return (
        head,
        number(shown, value),
        Cell("met", style="good"),
        Cell(_margin(study, limit, value)),
    )


def _margin(study: Study, limit: Limit, value: float) -> str:
    if limit.field in ("metric", "metric_loss"):
        room = abs(value - limit.value)
        return f"{show_limited(study, 'metric_loss', room)} to spare"
    if limit.value == 0:
        return DASH
    if limit.kind == "max":
        return f"uses {100 * value / limit.value:.0f} %"
    return f"{show_factor(value / limit.value)} the limit"


def pairs(study: Study) -> Table:
    """Every evaluated recipe beside its naive twin; naive ones without a mate stand alone."""
    aware = [t for t in study.trials if t.evaluation is not None and not is_naive(t)]
    mated = {t.twin for t in aware}
    alone = [
        t
        for t in study.trials
        if t.evaluation is not None and is_naive(t) and t.number not in mated
    ]
    rows = [
        _pair_row(study, t, None if t.twin is None else study.trials[t.twin], t) for t in aware
    ] + [_pair_row(study, None, t, t) for t in alone]
    divergence = metric_name(divergence_metric(study))
    columns = ["#", "Recipe", divergence, f"{divergence}, naive"]
    metric = task_metric(study)
    if metric is not None:
        name = metric_name(metric)
        name = name[0].upper() + name[1:]
        columns += [name, f"{name}, naive"]
    columns += [
        "Fetched a step",
        "Fetched, naive",
        "Smaller by",
        "Smaller, naive",
        "Status",
        "Status, naive",
    ]
    numeric = frozenset({0, *range(2, len(columns) - 2)})
    return Table(tuple(columns), tuple(rows), numeric)


def _pair_row(
    study: Study, aware: Trial | None, naive: Trial | None, named: Trial
) -> tuple[Cell, ...]:
    both = (aware, naive)
    role = "pick" if named is study.best else ""
    kinds = ("divergence", "metric") if task_metric(study) is not None else ("divergence",)
    cells = [Cell(str(named.number), sort=named.number), Cell(label(named), style=role)]
    for kind in kinds:
        for trial in both:
            quality = qualities_of(trial).get(kind)
            value = None if quality is None else quality.value
            text = DASH if quality is None else show_metric(quality.metric, value)
            cells.append(number(text, value))
    for trial in both:
        value = None if trial is None else cost_field(trial.cost, "weight_fetch_bytes_per_step")
        cells.append(number(show_quantity(value, "B"), value))
    for trial in both:
        value = (
            None
            if trial is None
            else ratio(study.baseline.cost.weight_bytes, trial.cost.weight_bytes)
        )
        cells.append(number(show_factor(value), value))
    for trial in both:
        status = DASH if trial is None else trial.status
        style = {"feasible": "good", "infeasible": "bad"}.get(status, "missing")
        why = "" if trial is None else ", ".join(show_limit(study, v) for v in trial.violations)
        cells.append(Cell(status, style=style, hint=f"misses {why}" if why else ""))
    return tuple(cells)


def steps(study: Study) -> Table:
    """The waterfall of the pick in figures; factors are against the step before."""
    return step_table(study.steps, metric_name(divergence_metric(study)))


_STEP_COLUMNS = (
    ("Fetched a step", "fetch_bytes_per_step", "B"),
    ("Stored", "weight_bytes", "B"),
    ("MACs a step", "macs_per_step", ""),
    ("Latency a step", "latency_per_step_s", "s"),
    ("Energy a step", "energy_per_step_j", "J"),
)


def step_table(steps: Sequence[Step], divergence: str) -> Table:
    """A row a step, from the uncompressed network on; factors are against the step before. What is
    not known of any step is left out.

    Args:
        divergence: what it is called.
    """
    known = [c for c in _STEP_COLUMNS if any(getattr(s, c[1]) is not None for s in steps)]
    rows = []
    for before, step in zip((None, *steps), steps, strict=False):
        cells = [Cell(step.label)]
        for _, name, unit in known:
            value = getattr(step, name)
            factor = None if before is None else ratio(getattr(before, name), value)
            cells.append(number(show_quantity(value, unit), value, show_step(factor)))
        cells.append(number(f"{step.divergence:.3g}", step.divergence))
        rows.append(tuple(cells))
    columns = ("Step", *(title for title, _, _ in known), divergence)
    return Table(columns, tuple(rows), frozenset(range(1, len(columns))))


def violations(study: Study) -> Table:
    """The nearest misses and the limits they miss, when nothing is feasible."""
    rows = []
    for index, missed in study.nearest:
        trial = study.trials[index]
        texts = [
            f"{show_limit(study, v)}: has {show_limited(study, v.field, v.value)} ({show_miss(v)})"
            for v in missed
        ]
        rows.append((Cell(str(index)), Cell(label(trial)), Cell("; ".join(texts), style="bad")))
    return Table(("#", "Nearest misses", "Misses"), tuple(rows), frozenset({0}))


def missed_limits(study: Study) -> Table:
    """How many recipes of the space miss each limit, and how many miss only that one."""
    space = [t for t in study.trials if t.role == "candidate"]
    rows = []
    for limit in study.limits:
        hits = [
            t
            for t in space
            if any((v.field, v.kind) == (limit.field, limit.kind) for v in t.violations)
        ]
        alone = sum(len(t.violations) == 1 for t in hits)
        rows.append((Cell(show_limit(study, limit)), Cell(str(len(hits))), Cell(str(alone))))
    columns = ("Limit", f"Missed by, of {len(space)} recipes", "Only this one missed")
    return Table(columns, tuple(rows), frozenset({1, 2}))


def weights(study: Study) -> Table:
    """What became of each weight of the subject, with the reason where it was not compressed."""
    trial = subject(study)[1]
    if trial is None or trial.evaluation is None:
        return Table((), ())
    evaluation = trial.evaluation
    names = list(dict.fromkeys([*evaluation.weights, *evaluation.coverage]))
    table = records({name: evaluation.weights.get(name, {}) for name in names}, "Weight")
    rows = []
    for name, row in zip(names, table.rows, strict=True):
        reason = evaluation.coverage.get(name, "")
        done = (
            Cell("compressed", style="good")
            if not reason
            else Cell("not compressed", reason, style="bad")
        )
        rows.append((*row, done))
    return Table((*table.columns, "Coverage"), tuple(rows), table.numeric)


def covered(study: Study) -> tuple[int, int]:
    """How many weights of the subject are compressed, of how many."""
    trial = subject(study)[1]
    if trial is None or trial.evaluation is None:
        return 0, 0
    names = {*trial.evaluation.weights, *trial.evaluation.coverage}
    return sum(not trial.evaluation.coverage.get(n, "") for n in names), len(names)


def energy(study: Study) -> Table:
    """Energy a step by part: the uncompressed network, the subject, its naive twin."""
    title, trial = subject(study)
    twin = naive_twin(study)
    named = {"Uncompressed": study.baseline.cost}
    named |= {n: t.cost for n, t in ((title, trial), ("Naive twin", twin)) if t is not None}
    found = {name: cost for name, cost in named.items() if cost.energy_breakdown_j}
    rows = []
    for part in dict.fromkeys(p for c in found.values() for p in c.energy_breakdown_j):
        values = [c.energy_breakdown_j.get(part) for c in found.values()]
        rows.append(
            (Cell(part.replace("_", " ")), *(number(show_quantity(v, "J"), v) for v in values))
        )
    if rows:
        totals = [show_quantity(cost_field(c, "energy_per_step_j"), "J") for c in found.values()]
        rows.append(tuple(Cell(text, style="total") for text in ("total", *totals)))
    columns = ("Energy a step", *found)
    return Table(columns, tuple(rows), frozenset(range(1, len(columns))))


def per_op(study: Study) -> Table:
    """What each operation of the subject costs a step."""
    trial = subject(study)[1]
    return Table((), ()) if trial is None else records(trial.cost.per_op, "Operation")


def layers(study: Study) -> Table:
    """The layers of the model as analysed."""
    found = study.analysis.get("layers", ())
    rest = [{k: v for k, v in layer.items() if k != "name"} for layer in found]
    return listed([str(layer.get("name", "")) for layer in found], rest, "Layer")


def ranks(study: Study) -> Table:
    """Units of each layer and how many directions hold 90 and 99 % of the hidden state's energy."""
    found: Mapping[str, Mapping[str, Any]] = study.analysis.get("hidden_rank", {})
    rest = {n: {k: v for k, v in r.items() if k != "spectrum"} for n, r in found.items()}
    return records(rest, "Layer")


def limits_elsewhere(study: Study, drawn: frozenset[str]) -> str:
    """The limits that no plot draws, as one line."""
    rest = [show_limit(study, limit) for limit in study.limits if limit.field not in drawn]
    return "; ".join(rest)
