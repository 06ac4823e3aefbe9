"""Programs: what is executed, priced and exported; built from a model by tracing its layers once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from modelflex.core.extension import Cell
from modelflex.core.fixed import Array
from modelflex.core.graph import Graph
from modelflex.core.model import MAX_NUMBERS, Layer, Model
from modelflex.core.piecewise import FUNCTIONS, Piecewise
from modelflex.core.recorder import Value
from modelflex.core.tracer import Product, Tracer
from modelflex.core.weight import Weight, float_weight
from modelflex.errors import UserError


@dataclass(frozen=True, eq=False)
class Stage:
    """One graph with input `x` and output `y`.

    Attributes:
        name: the layer it was traced from, or the first of several (see `layer_groups`).
        mode: "step" runs at every time step, "once" after the last, on the last value of the stage before.
    """

    name: str
    graph: Graph
    mode: str


@dataclass(frozen=True, eq=False)
class Program:
    """Ordered stages; each reads the one before it, the first reads the input.

    Attributes:
        numeric: "float" or "integer", for the whole program.
        products: what stands behind every site.
    """

    stages: tuple[Stage, ...]
    products: Mapping[str, Product]
    numeric: str

    @property
    def per_step(self) -> bool:
        """Whether there is an output at every step."""
        return all(stage.mode == "step" for stage in self.stages)

    @property
    def outputs(self) -> int:
        """Elements of one output."""
        graph = self.stages[-1].graph
        return graph.values[graph.outputs["y"]].size


def layer_groups(layers: Sequence[Layer]) -> list[tuple[Layer, ...]]:
    """The layers of every stage: one each, but what lies between a carried output and its reader is one.

    A stage runs over all steps before the next begins, so an output that is fed back cannot leave its
    stage: from the first layer that carries on, all layers are one graph with the output as state.
    """
    first = next((i for i, layer in enumerate(layers) if layer.carries), len(layers))
    groups: list[tuple[Layer, ...]] = [(layer,) for layer in layers[:first]]
    if first < len(layers):
        groups.append(tuple(layers[first:]))
    return groups


def build_program(model: Model) -> Program:
    """Trace every layer of the model; an uncompressed model gives a float program.

    Raises:
        UserError: a layer's weights do not fit how it applies them, or more than `MAX_NUMBERS`.
    """
    stages: list[Stage] = []
    products: dict[str, Product] = {}
    one_hot, numbers = False, 0
    for layers in layer_groups(model.layers):
        tracer = Tracer(model.numeric)
        y = _trace_layers(tracer, layers, model.weights, one_hot)
        one_hot, graph = y.one_hot, tracer.finish({"y": y})
        mode = "once" if layers[0].reads == "last" else "step"
        stages.append(Stage(layers[0].name, graph, mode))
        products |= tracer.products
        numbers += _numbers(graph, tracer.products.values())
        if numbers > MAX_NUMBERS:
            raise UserError(
                f"model '{model.name}' means {numbers} numbers up to its layer '{layers[-1].name}'",
                f"at most {MAX_NUMBERS}: matrices written out, kept steps, windows and results",
            )
    return Program(tuple(stages), products, model.numeric)


def _numbers(graph: Graph, products: Iterable[Product]) -> int:
    """Numbers that a layer means once it is at work, whatever is stored of them."""
    count = sum(graph.values[slot.read].size for slot in graph.state)
    count += sum(graph.values[made].size for made in graph.outputs.values())
    for product in products:
        count += product.geometry.out * product.geometry.inputs + product.outputs
        count += 0 if product.windows is None else product.windows.taps.size
    return count


def _tables(layer: Layer) -> dict[str, Piecewise]:
    """What the layer's nonlinearity gives for the functions; none for exact ones."""
    if layer.nonlinearity is None:
        return {}
    tables = {name: layer.nonlinearity.table(name) for name in FUNCTIONS}
    return {name: table for name, table in tables.items() if table is not None}


def shape_graph(layers: Sequence[Layer]) -> Graph:
    """A stage's graph in float arithmetic with weights of zeros: what does not hang on their form."""
    weights = {
        name: float_weight(np.zeros(shape, np.float32), None, 1)
        for layer in layers
        for name, shape in layer.weight_shapes.items()
    }
    tracer = Tracer("float")
    return tracer.finish({"y": _trace_layers(tracer, layers, weights, False)})


def input_symbols(model: Model) -> int | None:
    """How many symbols there are, where the model's inputs are numbers of symbols; else None."""
    graph = shape_graph(layer_groups(model.layers)[0])
    read = (op for op in graph.ops if op.inputs == (graph.inputs["x"],))
    return next((int(op.attrs["size"]) for op in read if op.kind == "one_hot"), None)


def check_symbols_read(x: Array, model: Model, where: str) -> None:
    """Refuse inputs [ΣT, 1] that are no symbols of a model that takes their numbers.

    Raises:
        UserError: a fraction, or a number below 0 or above the last symbol's.
    """
    symbols = input_symbols(model)
    if symbols is None:
        return
    bad = (x != np.rint(x)) | (x < 0) | (x >= symbols)
    if bad.any():
        raise UserError(
            f"{where}: x holds {float(x[bad][0]):g} where the model takes the number of a symbol",
            f"whole numbers 0 … {symbols - 1}",
        )


def hoistable_sites(program: Program) -> frozenset[str]:
    """Sites of the products that run at every step but hang on no carried state."""
    return frozenset(
        site
        for stage in program.stages
        if stage.mode == "step"
        for op in stage.graph.ops
        if op.site is not None
        and op.kind in ("linear", "accumulate", "refine")
        and not set(op.outputs) & stage.graph.state_dependent()
        for site in (op.site, op.attrs.get("inner", op.site))
    )


def one_hot_sites(program: Program) -> frozenset[str]:
    """Sites of the products without an activity whose input is one-hot."""
    return frozenset(
        op.site
        for stage in program.stages
        for op in stage.graph.ops
        if op.site is not None and op.attrs.get("skip_zeros")
        if (link := program.products[op.site].link) is None or link.activity is None
    )


def _trace_layers(
    tracer: Tracer, layers: Sequence[Layer], weights: Mapping[str, Weight], one_hot: bool
) -> Value:
    """Record the layers of a stage; its result. `one_hot` says what its input is (see `Value`)."""
    x = tracer.input("x", layers[0].inputs - layers[0].carries, one_hot)
    carrying: list[tuple[str, int]] = []
    for number, layer in enumerate(layers):
        scope = f"{layer.name}." if number else ""
        if layer.carries:
            carrying.append((f"{scope}carried", layer.carries))
            x = tracer.concat((x, tracer.state(*carrying[-1], tracer.real)))
        tracer.tables = _tables(layer) if tracer.numeric == "integer" else {}
        x = _trace_layer(tracer, layer, weights, x, scope)
    for slot, size in carrying:
        tracer.set_state(slot, tracer.slice(x, x.size - size, x.size))
    return x


def _trace_layer(
    tracer: Tracer, layer: Layer, weights: Mapping[str, Weight], x: Value, scope: str
) -> Value:
    """Record a layer that reads x; its result. `scope` begins the names of its state."""
    params = {
        name.removeprefix(layer.name + "."): _affine(tracer, name, weights[name])
        for name in layer.weight_shapes
    }
    plugin = layer.plugin
    if isinstance(plugin, Cell):
        state = {s: tracer.state(scope + s, layer.units, tracer.real) for s in plugin.states}
        y, after = plugin.step(tracer, x, state, params)
        for name in plugin.states:
            tracer.set_state(scope + name, after[name])
        return y
    if layer.past:
        before = tracer.state(f"{scope}past", layer.past * layer.inputs, tracer.real)
        x = tracer.concat((before, x))
        tracer.set_state(f"{scope}past", tracer.slice(x, layer.inputs, x.size))
    return plugin.apply(tracer, x, params, layer.sizes)


def _affine(tracer: Tracer, name: str, weight: Weight) -> Callable[..., Value]:
    return lambda x, windows=None: weight.lower(tracer, name, x, windows=windows)
