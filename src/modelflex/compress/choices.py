"""What a recipe means for the weights and layers of a model, before anything is compressed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from modelflex.core.extension import Cell, Removal
from modelflex.core.model import Layer, Model
from modelflex.core.recipe import Activation, Choice, Recipe
from modelflex.errors import UserError
from modelflex.registry import FORMATS, STRUCTURES

UNNAMED = "no rule of the recipe names it: stored in 16 bits"


def uncompressed_choice() -> Choice:
    """What an uncompressed weight is in an integer program: int16, with 16-bit inputs."""
    uniform = FORMATS.get("uniform")(bits=16, scales="row", clip="max", rounding="nearest")
    return Choice(STRUCTURES.get("dense")(), uniform, Activation(16, "max"))


def choices(model: Model, recipe: Recipe) -> dict[str, Choice]:
    """The choice for every weight of the model; uncompressed where no rule names it.

    Raises:
        UserError: a rule names no weight of the model, or decides for none because others come first.
    """
    used = {recipe.rule(name) for name in model.weights}
    for number, rule in enumerate(recipe.rules):
        if number not in used:
            raise UserError(
                f"the rule for '{rule.weights}' decides for no weight",
                f"a pattern that matches one of {', '.join(model.weights)} before other rules do",
            )
    return {name: recipe.choice(name) or uncompressed_choice() for name in model.weights}


def gates(model: Model) -> dict[str, int]:
    """Row groups of every weight: the gates of a cell, 1 elsewhere."""
    groups = {}
    for layer in model.layers:
        plugin = layer.plugin
        for name in layer.weight_shapes:
            short = name.removeprefix(layer.name + ".")
            groups[name] = plugin.gates[short] if isinstance(plugin, Cell) else 1
    return groups


def additive_groups(model: Model) -> list[tuple[str, ...]]:
    """Weights whose results are only ever added to each other, in groups; the others alone."""
    groups: list[tuple[str, ...]] = []
    for layer in model.layers:
        plugin = layer.plugin
        additive = plugin.additive if isinstance(plugin, Cell) else ()
        merged = tuple(f"{layer.name}.{w}" for w in additive)
        groups += [merged] if merged else []
        groups += [(name,) for name in layer.weight_shapes if name not in merged]
    return groups


def bias_carriers(model: Model, chosen: Mapping[str, Choice]) -> dict[str, tuple[str, ...]]:
    """Weight → the weights whose biases it carries once compressed (itself included), or none.

    Biases of an additive group are merged: into the first weight that keeps its accumulator under an
    activity, where the bias is read at reset only, else into the first.
    """
    carriers: dict[str, tuple[str, ...]] = {}
    for group in additive_groups(model):
        needed = any(model.weights[n].bias is not None or chosen[n].data_aware for n in group)
        held = (n for n in group if (a := chosen[n].activity) is not None and a.stateful)
        holder = next(held, group[0])
        carriers |= dict.fromkeys(group, ())
        if needed:
            carriers[holder] = group
    return carriers


# --- removal of units ----------------------------------------------------------------------------
@dataclass(frozen=True)
class Axes:
    """How a weight's sizes hang on those of the network: `row_groups` pieces of the units of the layer
    `rows` ("" where they stay), and columns that are the outputs of the layer `columns` ("" likewise).
    """

    row_groups: int
    rows: str
    columns: str


def weight_axes(model: Model) -> dict[str, Axes]:
    """The axes of every weight of the model."""
    axes: dict[str, Axes] = {}
    before = ""
    for layer in model.layers:
        wider = _shapes(replace(layer, units=layer.units + 1), layer)
        fed = _shapes(replace(layer, inputs=layer.inputs + 1), layer)
        for name, (out, inputs) in layer.weight_shapes.items():
            grown = wider[name][0] - out
            reads = [
                source
                for source, shapes in ((before, fed), (layer.name, wider))
                if shapes[name][1] != inputs
            ]
            # Columns that belong to both (an augmented matrix) are left as they are.
            columns = reads[0] if len(reads) == 1 else ""
            axes[name] = Axes(grown, layer.name if grown else "", columns)
        before = layer.name
    return axes


def _shapes(grown: Layer, layer: Layer) -> dict[str, tuple[int, int]]:
    """The weight shapes of a layer once grown, or as it is where it cannot grow by one."""
    try:
        return grown.weight_shapes
    except UserError:
        return layer.weight_shapes


def removals(model: Model, recipe: Recipe) -> dict[str, Removal]:
    """Layer → how many and which of its units stay, for the layers that lose some.

    Raises:
        UserError: a rule decides for no layer, a layer has no units that can go, or fewer than stay.
    """
    chosen = {layer.name: recipe.layer_choice(layer.name) for layer in model.layers}
    used = {number for number, _ in chosen.values()}
    for number, rule in enumerate(recipe.layers):
        if number not in used:
            names = ", ".join(chosen)
            raise UserError(
                f"the rule for the layers '{rule.layers}' decides for no layer",
                f"a pattern that matches one of {names} before other rules do",
            )
    found: dict[str, Removal] = {}
    for layer, after in zip(model.layers, (*model.layers[1:], None), strict=True):
        decided = chosen[layer.name][1]
        if decided is None or decided.removal is None:
            continue
        _check_removal(layer, after, decided.removal.units)
        if decided.removal.units < layer.units:
            found[layer.name] = decided.removal
    return found


def may_lose_units(model: Model, layer: str) -> bool:
    """Whether some units of a layer can be removed."""
    for own, after in zip(model.layers, (*model.layers[1:], None), strict=True):
        if own.name == layer:
            try:
                _check_removal(own, after, 1)
            except UserError:
                return False
            return own.units > 1
    raise KeyError(layer)


def _check_removal(layer: Layer, after: Layer | None, units: int) -> None:
    if not isinstance(layer.plugin, Cell) or after is None:
        raise UserError(
            f"units of the layer '{layer.name}' ({layer.kind}) are to be removed",
            "a recurrent layer that another layer reads",
        )
    if after.carries:
        raise UserError(
            f"units of '{layer.name}' are to be removed, read by '{after.name}' beside outputs carried",
            "a layer whose reader carries none",
        )
    if units > layer.units:
        raise UserError(
            f"{units} of {layer.units} units of '{layer.name}' are to stay", "at most all"
        )
    sizes = layer.weight_shapes.values()
    grown = replace(layer, units=layer.units + 1).weight_shapes.values()
    reader = _shapes(replace(after, inputs=after.inputs + 1), after)
    shapes = [reader[n][1] - s[1] for n, s in after.weight_shapes.items()]
    even = all(g[0] - s[0] in (0, s[0] // layer.units) for g, s in zip(grown, sizes, strict=True))
    if not even or sorted(shapes)[-1:] != [1] or _is_augmented(layer) or _is_augmented(after):
        raise UserError(
            f"units of '{layer.name}' are to be removed, read by '{after.name}' ({after.kind})",
            "weights with a column for each unit in the next layer, and none over two layers' outputs",
        )


def _is_augmented(layer: Layer) -> bool:
    """Whether columns of one weight belong partly to the layer's input and partly to its own units."""
    wider = _shapes(replace(layer, units=layer.units + 1), layer)
    fed = _shapes(replace(layer, inputs=layer.inputs + 1), layer)
    return any(
        wider[name][1] != inputs != fed[name][1]
        for name, (_, inputs) in layer.weight_shapes.items()
    )


def reduced_layers(model: Model, recipe: Recipe) -> tuple[Layer, ...]:
    """The layers as the recipe leaves them: fewer units where some are removed, other nonlinearities."""
    removed = removals(model, recipe)
    layers: list[Layer] = []
    for layer in model.layers:
        units = removed[layer.name].units if layer.name in removed else layer.units
        inputs = layers[-1].units + layer.carries if layers else layer.inputs
        rule = recipe.layer_choice(layer.name)[1]
        nonlinearity = None if rule is None else rule.nonlinearity
        layers.append(replace(layer, inputs=inputs, units=units, nonlinearity=nonlinearity))
    return tuple(layers)
