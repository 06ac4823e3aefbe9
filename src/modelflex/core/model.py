"""Models: pure, immutable data. What a layer kind means lies in its plug-in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from modelflex.core.divergence import check_output, judged
from modelflex.core.extension import Cell, FeedForward, Nonlinearity, Sizes
from modelflex.core.recipe import method_to_json
from modelflex.core.weight import Weight
from modelflex.errors import UserError, nearest
from modelflex.registry import CELLS, LAYERS, NONLINEARITIES

MAX_WEIGHT = 1 << 27
"""Numbers of one matrix: 1 GiB in binary64. A circulant or sparse file of 2 MB can mean 10¹² of them."""
MAX_NUMBERS = 1 << 28
"""Numbers of a whole network: its matrices written out, what its layers keep and give, and the places
that its windows look at. A small file can mean any number of matrices that are each small enough.
"""
MAX_LAYERS = 1 << 12
"""Layers of a network: each is planned and run on its own."""
MAX_OPTION = 1 << 20
MAX_PAST = 1 << 22
"""Numbers of earlier steps that a layer may keep."""
MAX_PAST_STEPS = 1 << 12
"""Earlier steps that a layer may keep: its program splits what it reads into steps."""
READS = ("every", "last")


@dataclass(frozen=True)
class Layer:
    """One layer.

    Attributes:
        inputs, units: elements of what it reads and gives at a step.
        carries: how many of its inputs, the last ones, are the last elements of the network's output
            at the step before (zeros at the first): predictions that are fed back.
        reads: whether it runs at "every" step or once, on the "last" one.
        options: further sizes that its kind takes.
        nonlinearity: how integer programs compute its σ and tanh; None for exactly.
    """

    name: str
    kind: str
    inputs: int
    units: int
    reads: str = "every"
    options: Mapping[str, int] = field(default_factory=dict)
    nonlinearity: Nonlinearity | None = None
    carries: int = 0

    @property
    def plugin(self) -> Cell | FeedForward:
        """The cell or layer that gives this kind its meaning."""
        known = CELLS if self.kind in CELLS.names() else LAYERS
        if self.kind not in known.names():
            supported = ", ".join((*CELLS.names(), *LAYERS.names()))
            raise UserError(
                f"layer '{self.name}' is of the unsupported kind '{self.kind}'",
                f"one of {supported}",
                "leave it outside the model or bring a plug-in for it",
            )
        plugin: Cell | FeedForward = known.get(self.kind)
        return plugin

    @property
    def weight_shapes(self) -> dict[str, tuple[int, int]]:
        """Full weight name → (outputs, inputs)."""
        plugin = self.plugin
        if isinstance(plugin, Cell):
            shapes = plugin.shapes(self.inputs, self.units)
        else:
            shapes = plugin.shapes(self.sizes)
        return {f"{self.name}.{w}": shape for w, shape in shapes.items()}

    @property
    def sizes(self) -> Sizes:
        """The sizes with all options of the kind, those that are not stated by their defaults.

        Raises:
            UserError: an option that the kind does not know, that is missing, or no size.
        """
        plugin = self.plugin
        known = {} if isinstance(plugin, Cell) else plugin.options
        for option, value in self.options.items():
            where = f"layer '{self.name}' ({self.kind})"
            if option not in known:
                hint = nearest(option, tuple(known)) if known else "none"
                raise UserError(f"{where} has the unknown option '{option}'", "an option", hint)
            if type(value) is not int or not 0 <= value <= MAX_OPTION:
                raise UserError(f"{where}: {option} is {str(value)[:30]}", f"0 … {MAX_OPTION}")
        values = {**known, **self.options}
        if missing := [option for option, value in values.items() if value is None]:
            raise UserError(f"layer '{self.name}' lacks options", ", ".join(missing))
        return Sizes(self.inputs, self.units, {n: v for n, v in values.items() if v is not None})

    @property
    def past(self) -> int:
        """Steps before the present one that a layer without recurrence reads too."""
        return 0 if isinstance(self.plugin, Cell) else self.plugin.past(self.sizes)

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        names = ("name", "kind", "inputs", "units", "reads")
        entry = {name: getattr(self, name) for name in names}
        if self.options:
            entry["options"] = dict(self.options)
        if self.carries:
            entry["carries"] = self.carries
        if self.nonlinearity is not None:
            entry["nonlinearity"] = method_to_json(NONLINEARITIES, self.nonlinearity)
        return entry


@dataclass(frozen=True, eq=False)
class Model:
    """A network: layers in order, and the weight of every affine map by its full name.

    Attributes:
        output: "logits" (divergence is KL of the softmax), "logits:K" (only the first K outputs are) or
            "values" (divergence is relative error).
        meta: free-form notes (JSON values); never read by computations.
    """

    name: str
    layers: tuple[Layer, ...]
    weights: Mapping[str, Weight]
    output: str = "logits"
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a mixture: a program computes in floats or in integers as a whole.

        Raises:
            UserError: some weights are floats, others integers.
        """
        weights = self.weights
        floats = [n for n, w in weights.items() if any(p.link is None for p in w.products)]
        if floats and any(weight.links for weight in weights.values()):
            raise UserError(
                f"some weights of '{self.name}' are integers and some floats: {', '.join(floats)}",
                "one kind for the whole model",
                "compress them too: in 16 bits where no rule of a recipe names them",
            )

    def with_weights(self, weights: Mapping[str, Weight]) -> Model:
        """The same network with some weights replaced.

        Raises:
            UserError: some weights would be floats and others integers.
        """
        return replace(self, weights={**self.weights, **weights})

    @property
    def inputs(self) -> int:
        """Features of one input step."""
        return self.layers[0].inputs - self.layers[0].carries

    @property
    def outputs(self) -> int:
        """Elements of one output."""
        return self.layers[-1].units

    @property
    def per_step(self) -> bool:
        """Whether there is an output at every step (many-to-many) or one a sequence."""
        return all(layer.reads == "every" for layer in self.layers)

    @cached_property  # layers ask for it one by one
    def numeric(self) -> str:
        """ "float" while every weight is uncompressed, "integer" otherwise."""
        return "float" if all(w.is_float for w in self.weights.values()) else "integer"

    @property
    def weight_bytes(self) -> int:
        """Bytes stored for all weights, biases and scales."""
        return sum(w.nbytes for w in self.weights.values())


def check_model(model: Model) -> Model:
    """Return `model` if its layers chain and its weights fit them.

    Raises:
        UserError: names the layer or weight, what was found and what was expected.
    """
    if not model.layers:
        raise UserError(f"model '{model.name}' has no layer", "at least one")
    if len(model.layers) > MAX_LAYERS:
        raise UserError(
            f"model '{model.name}' has {len(model.layers)} layers", f"at most {MAX_LAYERS}"
        )
    check_output(model.output)
    if judged(model.output, model.outputs) > model.outputs:
        raise UserError(
            f"model output is '{model.output}'", f"at most {model.outputs} logits, its outputs"
        )
    names = [layer.name for layer in model.layers]
    if len(set(names)) != len(names):
        raise UserError(
            f"layer names repeat: {', '.join(names)}", "a name of its own for every layer"
        )
    wanted: dict[str, tuple[int, int]] = {}
    before: Layer | None = None
    for layer in model.layers:
        _check_carries(layer, model)
        _check_layer(layer, before)
        if layer.nonlinearity is not None and model.numeric == "float":
            raise UserError(
                f"layer '{layer.name}' of an uncompressed model has a nonlinearity",
                "none: floats compute the exact functions",
                "name it in a recipe",
            )
        wanted |= layer.weight_shapes
        before = layer
    _check_weights(model, wanted)
    return model


def _check_weights(model: Model, wanted: Mapping[str, tuple[int, int]]) -> None:
    for name, shape in wanted.items():
        if name not in model.weights:
            raise UserError(f"weight '{name}' is missing", f"a matrix of {shape[0]}×{shape[1]}")
        found = model.weights[name].shape
        if found != shape:
            raise UserError(
                f"weight '{name}' is {found[0]}×{found[1]}",
                f"{shape[0]}×{shape[1]} (outputs × inputs)",
                "check the sizes and the order of rows and columns",
            )
        for rows, columns in (product.shape for product in model.weights[name].products):
            if rows * columns > MAX_WEIGHT:
                raise UserError(
                    f"weight '{name}' has a matrix of {rows}×{columns}",
                    f"at most {MAX_WEIGHT} numbers",
                )
    extra = set(model.weights) - set(wanted)
    if extra:
        raise UserError(f"weights that no layer uses: {', '.join(sorted(extra))}", "none")


def _check_carries(layer: Layer, model: Model) -> None:
    if type(layer.carries) is not int or not 0 <= layer.carries <= model.outputs:
        raise UserError(
            f"layer '{layer.name}' carries {str(layer.carries)[:30]} outputs to its next step",
            f"0 … {model.outputs}, the network's outputs",
        )
    if layer.carries and not model.per_step:
        last = next(layer.name for layer in model.layers if layer.reads == "last")
        raise UserError(
            f"layer '{layer.name}' carries outputs, and '{last}' reads the last step only",
            "an output at every step",
        )


def _check_layer(layer: Layer, before: Layer | None) -> None:
    if layer.reads not in READS:
        raise UserError(f"layer '{layer.name}' reads '{layer.reads}'", f"one of {', '.join(READS)}")
    recurrent = isinstance(layer.plugin, Cell)
    if layer.inputs - layer.carries < 1 or layer.units < 1:
        raise UserError(
            f"layer '{layer.name}' has {layer.inputs} inputs, {layer.units} units", "≥ 1"
        )
    past = layer.past
    if past > MAX_PAST_STEPS or past * layer.inputs > MAX_PAST:
        raise UserError(
            f"layer '{layer.name}' keeps {past} steps of {layer.inputs} inputs",
            f"at most {MAX_PAST_STEPS} steps and {MAX_PAST} numbers",
        )
    if past and layer.reads == "last":
        raise UserError(
            f"layer '{layer.name}' reads {past} steps before the last, and only the last",
            "'every'",
        )
    if before is None:
        if layer.reads == "last" and not recurrent:
            raise UserError(f"the first layer '{layer.name}' reads the last step", "'every'")
        return
    if layer.inputs - layer.carries != before.units:
        carried = f" and the {layer.carries} carried" if layer.carries else ""
        raise UserError(
            f"layer '{layer.name}' has {layer.inputs} inputs",
            f"{before.units + layer.carries}, the units of '{before.name}' before it{carried}",
        )
    if before.reads == "last" and layer.reads != "last":
        raise UserError(
            f"layer '{layer.name}' reads every step after '{before.name}' has read only the last",
            "'last' from there on",
        )
    if recurrent and layer.reads == "last":
        raise UserError(f"recurrent layer '{layer.name}' reads the last step", "'every'")
