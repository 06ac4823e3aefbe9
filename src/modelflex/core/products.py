"""The product table: what platforms price, for one recipe or for millions at once.

A row is one product (weight, choice, link) or the elementwise work of one layer. A row comes from a
footprint, before anything is compressed, or from a program and the counters of its run; both ways
agree (a contract test checks it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from modelflex.core.fixed import Array
from modelflex.core.graph import PRIMITIVES, Graph
from modelflex.core.layout import SPARSE, Geometry
from modelflex.core.model import Layer, Model
from modelflex.core.part import FLOAT_BITS, operand_bits
from modelflex.core.profile import Profile
from modelflex.core.program import Program, hoistable_sites, shape_graph
from modelflex.core.recipe import Choice
from modelflex.core.tracer import Activity, threshold_bytes
from modelflex.core.windows import Windows

STATE_BYTES = {"fx": 4, "float32": 4, "code": 2, "acc": 8, "delta": 4, "mask": 1}
"""Bytes of one element of a carried value in the portable layout of docs/arithmetic.md."""


@dataclass(frozen=True)
class ProductRow:
    """One row; bytes and counts are for one run of the product unless named otherwise.

    Attributes:
        site: weight/link, or "layer/elementwise".
        layout: of the weights; "" for elementwise rows.
        m, k: y[m] = A[m, k]·x[k]; for elementwise rows m results and k = 0.
        positions: how often that product is computed in a run, with one reading of A (a convolution).
        map_size: elements of a convolution's map, which are quantised once; 0 where k inputs are.
        block: inputs that share a fetch unit.
        weight_bits, activation_bits: operand widths (32 means float32; 0 for elementwise rows); what
            is stored may be narrower (codebooks) and shows in the bytes only.
        macs: multiply-accumulates with every input active, at all positions.
        stored_bytes: codes, scales and bias.
        units, unit_bytes: fetch units of the matrix and the bytes of each.
        fixed_bytes: read at each run whatever is active: scales, tables, thresholds, and the bias
            where there is no M.
        reset_bytes: read once a sequence: the bias as the first value of M.
        runs_per_step: 1, or 1/T for what runs once a sequence of T steps.
        density, density_low, density_high: share of units read: expected, and the interval it lies in.
        active, active_low, active_high: share of inputs whose products are computed, likewise.
        state_bytes: carried state.
        dense_macs: multiply-accumulates of the uncompressed product.
        hoistable: the inputs of all time steps may be known at once: they hang on no state that the
            product's own layer carries from step to step, nor does the product (delta does).
        functions: of the m results of an elementwise row, those of σ and tanh.
        shared_rows: rows that use an input together (blocks of a sparse layout).
    """

    site: str
    layout: str
    m: int
    k: int
    block: int
    weight_bits: int
    activation_bits: int
    macs: int
    stored_bytes: float
    units: int
    unit_bytes: float
    fixed_bytes: float
    reset_bytes: float
    runs_per_step: float
    density: float = 1.0
    density_low: float = 1.0
    density_high: float = 1.0
    active: float = 1.0
    active_low: float = 1.0
    active_high: float = 1.0
    state_bytes: float = 0.0
    dense_macs: int = 0
    hoistable: bool = False
    functions: int = 0
    shared_rows: int = 1
    positions: int = 1
    map_size: int = 0


@dataclass(frozen=True, eq=False)
class ProductTable:
    """Rows as a struct of arrays.

    Attributes:
        columns: field of `ProductRow` → array [rows].
        row_start: choice number c owns the rows row_start[c] … row_start[c+1]−1; [choices + 1].
        steps: T, mean time steps of a sequence.
    """

    columns: Mapping[str, Array]
    row_start: Array
    steps: float

    def __getitem__(self, name: str) -> Array:
        return self.columns[name]

    @property
    def rows(self) -> int:
        """How many rows."""
        return int(self.row_start[-1])

    def optimistic(self) -> ProductTable:
        """The same rows at the low end of their density intervals."""
        return self._active(self["density_low"], self["active_low"])

    def pessimistic(self) -> ProductTable:
        """The same rows at the high end of their density intervals."""
        return self._active(self["density_high"], self["active_high"])

    def with_everything_sent(self) -> ProductTable:
        """The same rows in a step in which every input is active."""
        return self._active(np.ones(self.rows), np.ones(self.rows))

    def _active(self, density: Array, active: Array) -> ProductTable:
        return replace(self, columns={**self.columns, "density": density, "active": active})

    @property
    def vector_results(self) -> Array:
        """Results of a run outside the products: inputs that are quantised, results that are rescaled."""
        quantised = np.where(self["map_size"] > 0, self["map_size"], self["k"])
        return np.asarray(self["m"] * self["positions"] + quantised)

    def per_choice(self, column: Array) -> Array:
        """Sum a column [rows] over the rows of every choice: [choices]."""
        # Each on its own: a running sum would let the rounding hang on the other choices.
        start, end = self.row_start[:-1], self.row_start[1:]
        return np.where(end > start, np.add.reduceat(np.append(column, 0.0), start), 0.0)

    def total(self, column: Array, choices: Array) -> Array:
        """Sum a column [rows] over whole recipes: `choices` [recipes, weights] → [recipes]."""
        return self.per_choice(column)[choices].sum(axis=1)

    @property
    def fetch_bytes_per_step(self) -> Array:
        """Weight bytes read per time step, [rows]; see `Cost.weight_fetch_bytes_per_step`."""
        per_run = self["units"] * self["unit_bytes"] * self["density"] + self["fixed_bytes"]
        return per_run * self["runs_per_step"] + self["reset_bytes"] / self.steps


def count_totals(table: ProductTable, choices: Array) -> dict[str, Array]:
    """Fields of `Cost` that hang on no device: `choices` [recipes, weights] → [recipes] each."""
    macs = table["macs"] * table["active"] * table["runs_per_step"]
    return {
        "weight_bytes": table.total(table["stored_bytes"], choices),
        "state_bytes": table.total(table["state_bytes"], choices),
        "weight_fetch_bytes_per_step": table.total(table.fetch_bytes_per_step, choices),
        "macs_per_step": table.total(macs, choices),
    }


def make_table(choices: Sequence[Sequence[ProductRow]], steps: float) -> ProductTable:
    """A table from the rows of every choice, in the order of the choice numbers."""
    rows = [row for choice in choices for row in choice]
    columns = {f.name: np.array([getattr(row, f.name) for row in rows]) for f in fields(ProductRow)}
    start = np.concatenate([[0], np.cumsum([len(choice) for choice in choices])])
    return ProductTable(columns, start.astype(np.int64), steps)


def bias_bits(format_bits: int) -> int:
    """Bits of a stored bias: 8 beside weights of at most 4 bits, else 16."""
    return 8 if format_bits <= 4 else 16


@dataclass(frozen=True)
class Density:
    """Shares (expected, low, high) of fetch units and of inputs that are active under an activity."""

    units: tuple[float, float, float] = (1.0, 1.0, 1.0)
    inputs: tuple[float, float, float] = (1.0, 1.0, 1.0)


def footprint(
    site: str,
    shape: tuple[int, int],
    choice: Choice,
    *,
    gates: int,
    has_bias: bool,
    runs_per_step: float,
    densities: Sequence[Density],
    hoistable: bool,
    dense_macs: int | None = None,
    windows: Windows | None = None,
) -> list[ProductRow]:
    """Rows of a weight [out, in] under a choice, without compressing it.

    Args:
        gates: row groups of the weight, for scales shared within a group.
        has_bias: whether the weight carries a bias once compressed.
        densities: one for each product of the structure.
        hoistable: whether the dense product's inputs may be known for all time steps at once.
        dense_macs: of the uncompressed product, where units were removed; None for out·in.
        windows: where the weight is applied to its input; None for once.
    """
    rows: list[ProductRow] = []
    positions = 1 if windows is None else windows.positions
    products, form, bits = choice.structure.plan(*shape), choice.format, choice.activation.bits
    held_before = False
    for link, (planned, density) in enumerate(zip(products, densities, strict=True)):
        geo = planned.geometry
        columns = 0 if planned.layout in SPARSE else -(-geo.codes // geo.rows)
        side = form.side_bytes(geo.rows, columns, gates if planned.gated else 1)
        last = link == len(products) - 1
        bias = geo.out * bias_bits(form.stored_bits) // 8 + 1 + 2 if has_bias and last else 0
        inputs, block = geo.inputs, geo.block
        if windows is not None:
            inputs, block = windows.size if planned.outer else geo.inputs * positions, 1
        activity = choice.activity if planned.outer else planned.inner
        state, held = _state_bytes(activity, geo.out * positions, inputs)
        if activity is not None:
            side += activity.threshold_count(inputs, block) * threshold_bytes(bits)
        # What follows a product that keeps its sum hangs on that state too.
        held_before = held or (held_before and not planned.outer)
        rows.append(
            _row(
                site=f"{site}/{link}",
                layout=planned.layout,
                geo=geo,
                stored_bits=form.stored_bits,
                weight_bits=operand_bits(form.grid_kind, form.stored_bits),
                activation_bits=bits,
                side_bytes=side,
                bias_bytes=bias,
                held=held,
                runs_per_step=runs_per_step,
                density=density,
                state_bytes=state,
                dense_macs=(dense_macs or shape[0] * shape[1]) * positions if link == 0 else 0,
                hoistable=hoistable and not held_before,
                positions=positions,
                map_size=0 if windows is None else inputs,
            )
        )
    return rows


def _state_bytes(held: Activity | None, out: int, inputs: int) -> tuple[int, bool]:
    """Bytes of an activity's state, and whether it keeps the sum of the products."""
    return (0, False) if held is None else (held.state_bytes(out, inputs), held.stateful)


def _row(
    *,
    site: str,
    layout: str,
    geo: Geometry,
    stored_bits: int,
    weight_bits: int,
    activation_bits: int,
    side_bytes: float,
    bias_bytes: float,
    held: bool,
    runs_per_step: float,
    density: Density,
    state_bytes: float,
    dense_macs: int,
    hoistable: bool,
    positions: int,
    map_size: int,
) -> ProductRow:
    codes = (geo.codes * stored_bits + 7) // 8 + (geo.index_bits + 7) // 8
    return ProductRow(
        site=site,
        layout=layout,
        m=geo.out,
        k=geo.inputs,
        block=geo.block,
        shared_rows=geo.shared_rows,
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        macs=geo.macs * positions,
        stored_bytes=codes + side_bytes + bias_bytes,
        units=geo.units,
        unit_bytes=(geo.unit_codes * stored_bits + geo.index_bits / geo.units) / 8,
        fixed_bytes=side_bytes + (0 if held else bias_bytes),
        reset_bytes=bias_bytes if held else 0,
        runs_per_step=runs_per_step,
        density=density.units[0],
        density_low=density.units[1],
        density_high=density.units[2],
        active=density.inputs[0],
        active_low=density.inputs[1],
        active_high=density.inputs[2],
        state_bytes=state_bytes,
        dense_macs=dense_macs,
        hoistable=hoistable,
        positions=positions,
        map_size=map_size,
    )


def program_rows(
    program: Program, profile: Profile, model: Model, steps: float
) -> list[list[ProductRow]]:
    """Product rows of a program with the densities that a run measured, grouped by weight."""
    once = {layer.name for layer in model.layers if layer.reads == "last"}
    hoistable = hoistable_sites(program)
    groups: dict[str, list[ProductRow]] = {}
    for site, product in program.products.items():
        counts, geo = profile.sites[site], product.geometry
        activity = None if product.link is None else product.link.activity
        state, held = _state_bytes(activity, product.outputs, product.inputs)
        units = counts.units / max(counts.runs * geo.units, 1)
        active = counts.active / max(counts.runs * geo.inputs * product.positions, 1)
        out, inputs = model.weights[product.weight].shape
        row = _row(
            site=site,
            layout=product.layout,
            geo=geo,
            stored_bits=product.part.bits,
            weight_bits=operand_bits(product.part.grid.kind, product.part.bits),
            activation_bits=FLOAT_BITS if product.link is None else product.link.bits,
            side_bytes=product.part.side_bytes + (product.link.nbytes if product.link else 0),
            bias_bytes=product.bias_bytes,
            held=held,
            runs_per_step=1 / steps if product.weight.rsplit(".", 1)[0] in once else 1.0,
            density=Density((units,) * 3, (active,) * 3),
            state_bytes=state,
            dense_macs=out * inputs * product.positions if site.endswith("/0") else 0,
            hoistable=site in hoistable,
            positions=product.positions,
            map_size=0 if product.windows is None else product.inputs,
        )
        groups.setdefault(product.weight, []).append(row)
    return list(groups.values())


def elementwise_rows(program: Program, steps: float) -> list[list[ProductRow]]:
    """One row for each stage: results of elementwise primitives, and the cell's state.

    Encoding of inputs, rescaling of results and adding the terms of a sum belong to the products.
    """
    return [[_elementwise(s.graph, f"{s.name}/elementwise", s.mode, steps)] for s in program.stages]


def stage_row(layers: Sequence[Layer], steps: float) -> ProductRow:
    """The elementwise row of a stage (see `layer_groups`), from the sizes of its layers alone."""
    mode = "once" if layers[0].reads == "last" else "step"
    return _elementwise(shape_graph(layers), f"{layers[0].name}/elementwise", mode, steps)


_FREE = ("quantize", "delta_encode", "rescale", "slice", "concat", "one_hot")
"""Work that belongs to products, and choices of what they read."""


def _elementwise(graph: Graph, site: str, mode: str, steps: float) -> ProductRow:
    sizes = [
        (op.kind, graph.values[op.outputs[0]].size)
        for op in graph.ops
        if PRIMITIVES[op.kind].elementwise and op.kind not in _FREE and op.site is None
    ]
    cell = [graph.values[slot.read] for slot in graph.state if "/" not in slot.name]
    return ProductRow(
        site=site,
        layout="",
        m=sum(size for _, size in sizes),
        k=0,
        block=1,
        weight_bits=0,
        activation_bits=0,
        macs=0,
        stored_bytes=0.0,
        units=0,
        unit_bytes=0.0,
        fixed_bytes=0.0,
        reset_bytes=0.0,
        runs_per_step=1.0 if mode == "step" else 1.0 / steps,
        state_bytes=float(sum(v.size * STATE_BYTES[v.dtype] for v in cell)),
        functions=sum(size for kind, size in sizes if kind in ("sigmoid", "tanh", "piecewise")),
    )


def program_table(
    program: Program, profile: Profile, model: Model, steps: float | None = None
) -> ProductTable:
    """The table of a single recipe: its program with the densities that a run measured.

    Args:
        model: the uncompressed network, whose multiply-accumulates are the dense ones.
        steps: T, time steps of a sequence; None for the mean of the run.
    """
    steps = profile.steps / profile.sequences if steps is None else steps
    rows = program_rows(program, profile, model, steps)
    return make_table([*rows, *elementwise_rows(program, steps)], steps)


def single_recipe(table: ProductTable) -> Array:
    """The choice matrix [1, choices] of a table that holds one recipe."""
    return np.arange(table.row_start.size - 1)[None, :]
