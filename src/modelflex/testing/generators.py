"""Random models, data and recipes for the contract suites, drawn from the registries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from modelflex.calibrate import calibrate
from modelflex.compress import Compression, compress
from modelflex.compress.choices import gates, may_lose_units, reduced_layers
from modelflex.compress.links import inner_link
from modelflex.core.data import Sequences
from modelflex.core.extension import Fit, Format, Moments, Sizes, Structure
from modelflex.core.fixed import Array
from modelflex.core.held import with_activity
from modelflex.core.model import Layer, Model, check_model
from modelflex.core.part import FLOAT_BITS, Part
from modelflex.core.program import Program, Stage, build_program, input_symbols
from modelflex.core.recipe import Activation, Choice, LayerRule, Recipe, Rule
from modelflex.core.stats import Stats, Trace
from modelflex.core.tracer import Link, Tracer
from modelflex.core.weight import Chain, Matrix, Sum, Weight, float_weight
from modelflex.execute.interpret import Execution, run
from modelflex.registry import (
    ACTIVITIES,
    CELLS,
    FORMATS,
    NONLINEARITIES,
    REMOVALS,
    STRUCTURES,
    Registry,
)
from modelflex.search.ranges import configurations, fits, is_interval

NAIVE_SHARE, UNNAMED_SHARE, HELD_SHARE, REMOVED_SHARE = 0.4, 0.15, 0.6, 0.5


# --- data and models -----------------------------------------------------------------------------
def random_sequences(
    rng: np.random.Generator, lengths: Sequence[int], features: int, classes: int = 0
) -> Sequences:
    """Ragged sequences that move slowly, as real signals do; `classes` > 0 adds a label to each."""
    sizes = np.array(lengths, np.int64)
    noise = rng.normal(0.0, 1.0, (int(sizes.sum()), features))
    x = np.empty_like(noise)
    row = 0
    for size in sizes:
        x[row] = noise[row]
        for t in range(row + 1, row + size):
            x[t] = 0.9 * x[t - 1] + 0.4 * noise[t]
        row += size
    y = rng.integers(0, classes, sizes.size) if classes else None
    return Sequences(x.astype(np.float32), sizes, y)


def random_model(
    rng: np.random.Generator,
    cells: Sequence[str],
    *,
    inputs: int = 8,
    units: int = 16,
    outputs: int = 4,
    reads: str = "last",
) -> Model:
    """Recurrent layers of the kinds `cells` and a dense head; some weights have no bias."""
    layers = [
        Layer(f"layer{i}", kind, units if i else inputs, units) for i, kind in enumerate(cells)
    ]
    layers.append(Layer("head", "dense", units, outputs, reads))
    return make_model(rng, layers)


def random_layer_model(rng: np.random.Generator, kind: str, sizes: Sizes, reads: str) -> Model:
    """A layer of any kind and a dense head on it."""
    layers = [
        Layer("layer0", kind, sizes.inputs, sizes.units, "every", sizes.options),
        Layer("head", "dense", sizes.units, 4, reads),
    ]
    return make_model(rng, layers)


def random_carrying_model(
    rng: np.random.Generator, kinds: Sequence[str], carries: int, alone: bool = False
) -> Model:
    """Layers, the first of which reads that many outputs of the step before too, and a head of 5 outputs.

    Args:
        alone: whether there is no stateless layer before them.
    """
    layers = [] if alone else [Layer("before", "dense", 6, 8)]
    for number, kind in enumerate(kinds):
        carried = 0 if number else carries
        inputs = (layers[-1].units if layers else 6) + carried
        units = inputs if kind == "relu" else 8
        options = {"kernel": 2} if kind == "conv1d" else {}
        layers.append(
            Layer(f"layer{number}", kind, inputs, units, options=options, carries=carried)
        )
    return make_model(rng, [*layers, Layer("head", "dense", layers[-1].units, 5)])


def random_inputs(rng: np.random.Generator, lengths: Sequence[int], model: Model) -> Sequences:
    """Ragged sequences for a model; symbols where its first layer takes them."""
    data = random_sequences(rng, lengths, model.inputs)
    symbols = input_symbols(model)
    if symbols is None:
        return data
    x = rng.integers(0, symbols, data.x.shape).astype(np.float32)
    return replace(data, x=x)


def make_model(rng: np.random.Generator, layers: Sequence[Layer]) -> Model:
    """Layers with random weights, some without a bias."""
    weights: dict[str, Weight] = {}
    groups = {}
    for layer in layers:
        for name, (rows, columns) in layer.weight_shapes.items():
            matrix = rng.normal(0.0, 1.5 / np.sqrt(columns), (rows, columns))
            bias = rng.normal(0.0, 0.5, rows) if rng.random() < 0.7 else None
            groups[name] = matrix, bias
    blank = Model("random", tuple(layers), {})
    for name, count in gates(blank).items():
        matrix, bias = groups[name]
        weights[name] = float_weight(matrix, bias, count)
    return check_model(blank.with_weights(weights))


# --- methods and recipes -------------------------------------------------------------------------
def draw(rng: np.random.Generator, values: Sequence[Any]) -> Any:
    """One value of a search range; two floats are the ends of an interval."""
    if is_interval(values):
        inside = float(rng.uniform(*values))
        values = (*values, inside)
    return values[int(rng.integers(len(values)))]


def random_config(rng: np.random.Generator, kind: Any) -> Any:
    """A configuration of a method from its search range, sometimes in its naive variant."""
    made = kind(**{name: draw(rng, values) for name, values in kind.search_range.items()})
    return made.naive() if rng.random() < NAIVE_SHARE else made


def all_configs(kind: Any) -> list[Any]:
    """Every configuration of a method's search range, and the naive variants, each once."""
    made = configurations(kind)
    return list(dict.fromkeys([*made, *(config.naive() for config in made)]))


def make_moments(matrix: Array, original: Array, held: Array) -> Moments:
    """What a weight alone is fitted to: `matrix`·z_o from z_c, both [steps, in]."""
    o, c = original - original.mean(axis=0), held - held.mean(axis=0)
    return Moments(c.T @ c / len(c), matrix @ o.T @ c / len(c))


def make_fit(
    matrix: Array,
    moments: Moments | None,
    encode: Format,
    link: Link,
    gates: int = 1,
    sample: Array | None = None,
) -> Fit:
    """A weight to be compressed; intermediate results are quantised to the bits of `link`."""
    seen = np.random.default_rng(0).normal(size=(50, matrix.shape[1])) if sample is None else sample
    inner = partial(inner_link, Activation(link.bits))

    def outer(block: int) -> Link:
        if link.activity is None:
            return link
        norms = np.linalg.norm(matrix, axis=0)
        return with_activity(link, link.activity, Trace.of(seen), norms, block)

    return Fit(matrix, moments, encode, gates, link, seen, inner, outer)


def _method(rng: np.random.Generator, registry: Registry) -> Any:
    return random_config(rng, registry.get(draw(rng, registry.names())))


def random_choice(rng: np.random.Generator, shape: tuple[int, int], groups: int) -> Choice:
    """A choice on every axis that fits a weight of `shape` with so many equal row groups."""
    structure = _method(rng, STRUCTURES)
    while not _holds(structure, shape, groups):
        structure = _method(rng, STRUCTURES)
    activation = Activation(draw(rng, (2, 4, 5, 8, 8, 12, 16)), draw(rng, ("max", "mse")))
    held = _method(rng, ACTIVITIES) if rng.random() < HELD_SHARE else None
    return Choice(structure, _method(rng, FORMATS), activation, held)


def _holds(structure: Structure, shape: tuple[int, int], groups: int) -> bool:
    """Whether a structure takes a weight and scales can be shared by its row groups."""
    if not fits(structure, shape):
        return False
    return all(p.geometry.rows % groups == 0 for p in structure.plan(*shape) if p.gated)


def random_rules(
    rng: np.random.Generator, model: Model, layers: tuple[LayerRule, ...] = ()
) -> tuple[Rule, ...]:
    """A rule of its own for most weights, of the sizes that rules for layers leave; for at least one."""
    shapes: dict[str, tuple[int, int]] = {}
    for layer in reduced_layers(model, Recipe((), layers=layers)):
        shapes |= layer.weight_shapes
    names = [n for n in shapes if rng.random() >= UNNAMED_SHARE] or list(shapes)[:1]
    groups = gates(model)
    return tuple(Rule(n, random_choice(rng, shapes[n], groups[n])) for n in names)


def random_layer_rule(rng: np.random.Generator, model: Model, layer: Layer) -> LayerRule:
    """Another nonlinearity, and fewer units where the layer may lose some."""
    removal = None
    if may_lose_units(model, layer.name) and rng.random() < REMOVED_SHARE:
        units = draw(rng, (1, layer.units // 4, layer.units // 2, layer.units - 1, layer.units))
        removal = replace(_method(rng, REMOVALS), units=units)
    return LayerRule(layer.name, removal, _method(rng, NONLINEARITIES))


def random_recipe(rng: np.random.Generator, model: Model, recalibrate: int = 0) -> Recipe:
    """A recipe with rules for most weights and layers; others may be left unnamed."""
    layers = tuple(
        random_layer_rule(rng, model, layer)
        for layer in model.layers
        if rng.random() >= UNNAMED_SHARE
    )
    rules = random_rules(rng, model, layers)
    return Recipe(rules, recalibrate, label="random", layers=layers)


@dataclass(frozen=True, eq=False)
class Case:
    """A random network compressed by a random recipe, and held-out data."""

    model: Model
    stats: Stats
    recipe: Recipe
    made: Compression
    data: Sequences

    @property
    def program(self) -> Program:
        """The program of the compressed model."""
        return build_program(self.made.model)


def random_case(seed: int) -> Case:
    """The case of a seed: one or two layers of any registered cells, many-to-one or many-to-many."""
    rng = np.random.default_rng(seed)
    cells = [draw(rng, CELLS.names()) for _ in range(1 + seed % 2)]
    model = random_model(rng, cells, reads=draw(rng, ("last", "every")))
    stats = calibrate(model, random_sequences(rng, (9, 14, 5, 11), model.inputs))
    recipe = random_recipe(rng, model, recalibrate=int(rng.integers(3)))
    data = random_sequences(rng, (7, 1, 12, 4, 12), model.inputs)
    return Case(model, stats, recipe, compress(model, recipe, stats), data)


# --- single weights ------------------------------------------------------------------------------
def weight_program(weight: Weight, inputs: int) -> Program:
    """A program that is nothing but one weight, applied at every step (site "w")."""
    tracer = Tracer("float" if weight.is_float else "integer")
    graph = tracer.finish({"y": weight.lower(tracer, "w", tracer.input("x", inputs))})
    return Program((Stage("w", graph, "step"),), tracer.products, tracer.numeric)


def run_weight(weight: Weight, data: Sequences) -> Execution:
    """Run a single weight over sequences, with its inputs captured."""
    return run(weight_program(weight, int(data.x.shape[1])), data, capture=True)


def as_floats(weight: Weight) -> Weight:
    """The same map with float values and no input format."""
    if isinstance(weight, Chain):
        return Chain(tuple(_float_product(factor) for factor in weight.factors))
    if isinstance(weight, Sum):
        terms = (as_floats(term) for term in weight.terms)
        return Sum(tuple(t for t in terms if isinstance(t, Matrix | Chain)))
    assert isinstance(weight, Matrix)
    return _float_product(weight)


def _float_product(matrix: Matrix) -> Matrix:
    stored = Part(
        matrix.part.value().astype(np.float32),
        FLOAT_BITS,
        index=matrix.part.index,
        index_bits=matrix.part.index_bits,
    )
    bias = None
    if matrix.bias is not None:
        bias = Part(matrix.bias_value().astype(np.float32), FLOAT_BITS)
    return replace(matrix, part=stored, own_bias=bias, link=None)


def integer_matrix(weight: Matrix) -> Array:
    """The integers [out, in] that a product multiplies, int64, from `dense` alone."""
    rows = weight.accumulator_scale() / weight.links[-1].step
    codes = weight.dense() / rows[:, None]
    whole = np.rint(codes)
    assert np.array_equal(codes, whole), "dense() is no integer multiple of the row scales"
    return whole.astype(np.int64)
