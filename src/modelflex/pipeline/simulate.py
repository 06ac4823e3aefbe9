"""Simulating hardware: layers on a systolic array, and whole models on any platform."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, cast, get_args

from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.core.cost import Cost
from modelflex.core.data import Sequences
from modelflex.core.json_values import read_json_object
from modelflex.core.model import Model
from modelflex.core.platform import MeasuredPlatform, Platform
from modelflex.core.products import program_table
from modelflex.core.profile import Profile, SiteCounts
from modelflex.core.program import Program, build_program
from modelflex.core.recipe import Recipe, recipe_from_json
from modelflex.core.spec import SPECS
from modelflex.errors import UserError, nearest
from modelflex.importers.data import load_sequences
from modelflex.importers.models import load_model
from modelflex.pipeline.measuring import measure_program
from modelflex.platforms.systolic.closed_forms import Dataflow
from modelflex.platforms.systolic.layers import COMPAT, simulate_layer, total_cycles
from modelflex.platforms.systolic.points import Points, one_point
from modelflex.platforms.systolic.scalesim_config import read_config
from modelflex.platforms.systolic.topology import read_topology
from modelflex.platforms.systolic.workload import Gemm, batched
from modelflex.progressive.climbing import all_terms
from modelflex.registry import PLATFORMS
from modelflex.report.summary import strict_json
from modelflex.search.config import platform_options, read_toml
from modelflex.search.pricing import Pricer
from modelflex.search.problem import run_network
from modelflex.search.targets import ready_platform

DEFAULT_STEPS = 100
MAX_STEPS = 2**53
"""Most steps of a sequence: floating point counts them."""


_SIZES: Final = {
    "rows": 32,
    "columns": 32,
    "ifmap_kb": 1024,
    "filter_kb": 2048,
    "ofmap_kb": 1024,
}
"""Field of `Points` → default."""


@dataclass(frozen=True)
class ArrayOptions:
    """The array that layers run on.

    Attributes:
        compat: the numbers of SCALE-Sim 3.0.0, quirks included.
    """

    dataflow: Dataflow
    point: Points
    compat: bool

    @classmethod
    def from_config(cls, path: Path, compat: str | None = None) -> Self:
        """The array of a SCALE-Sim configuration.

        Raises:
            UserError: it cannot be read or is not modelled, or an unknown peer.
        """
        config = read_config(path)
        return cls(config.dataflow, config.to_points(), _is_compat(compat))

    @classmethod
    def from_sizes(
        cls,
        sizes: Mapping[str, int],
        dataflow: str = "os",
        bandwidth: float | None = None,
        compat: str | None = None,
    ) -> Self:
        """An array of rows, columns, ifmap_kb, filter_kb, ofmap_kb; what is left out has its default.

        Raises:
            UserError: an unknown dataflow or peer, nonsense sizes.
        """
        if dataflow not in get_args(Dataflow):
            known = ", ".join(get_args(Dataflow))
            raise UserError(f"unknown dataflow '{dataflow}'", f"one of {known}")
        point = one_point({**_SIZES, **sizes}, bandwidth)
        return cls(cast(Dataflow, dataflow), point, _is_compat(compat))


def _is_compat(peer: str | None) -> bool:
    if peer not in (None, COMPAT):
        raise UserError(f"compat is '{peer}'", f"'{COMPAT}'")
    return peer is not None


def simulate_gemm(sizes: str, array: ArrayOptions, batch: int = 1) -> dict[str, Any]:
    """One product of sizes "M,N,K", ifmap M×K and filter K×N; see `simulate_layer`.

    Args:
        batch: inputs that share the filter; they multiply M.

    Raises:
        UserError: not three whole numbers above zero, or what `simulate_layer` refuses.
    """
    parts = [part.strip() for part in sizes.split(",")]
    if len(parts) != 3 or not all(re.fullmatch(r"-?[0-9]{1,18}", part) for part in parts):
        raise UserError(f"gemm is '{sizes}'", "three whole numbers M,N,K")
    layer = batched(Gemm("gemm", *(int(part) for part in parts)), batch)
    return simulate_layer(array.dataflow, layer, array.point, array.compat)


def simulate_topology(path: Path, array: ArrayOptions, batch: int = 1) -> dict[str, Any]:
    """All layers of a topology file, one after the other: layers and total_cycles."""
    layers = [
        simulate_layer(array.dataflow, batched(layer, batch), array.point, array.compat)
        for layer in read_topology(path)
    ]
    return {"layers": layers, "total_cycles": total_cycles(layers)}


def find_platform(text: str) -> Platform:
    """A platform by the name of a family or of a shipped spec, or from a .toml file.

    A file is either a spec (it names its family) or a configuration with a table [platform].

    Raises:
        UserError: no such platform or file.
    """
    if text.endswith(".toml"):
        return _platform_in(Path(text))
    specs = {path.stem: path for path in sorted(SPECS.glob("*.toml"))}
    if text in specs:
        return _platform_in(specs[text])
    if text not in PLATFORMS.names():
        known = [*PLATFORMS.names(), *specs]
        raise UserError(
            f"unknown platform '{text}'",
            "a family, a shipped spec or a .toml file",
            nearest(text, known),
        )
    return ready_platform(text, {})


def _platform_in(path: Path) -> Platform:
    content = read_toml(path)
    name, options = content.get("family"), {"spec": str(path)}
    if "platform" in content:
        name, found = platform_options(content["platform"], path.resolve().parent)
        options = dict(found)
    if not isinstance(name, str):
        raise UserError(
            f"'{path}' names no platform",
            "a spec with `family`, or a configuration with a table [platform]",
        )
    return ready_platform(name, options)


def price_model(
    model: Any,
    platform: Platform,
    *,
    recipe: Path | None = None,
    data: Path | None = None,
    steps: int | None = None,
) -> dict[str, Any]:
    """What a model costs on a platform, without compressing or running it; on a platform that is
    measured it is compressed by the recipe and run, and `predicted` is what the platform expected.

    Args:
        model: folder, file, torch module or `Model`.
        recipe: a recipe (JSON); without one all weights and activations have 16 bits, but a model of
            terms is priced as it is, with all of them, and a measured platform runs the model as it is.
        data: sequences that tell how many steps there are, and which share of the products an
            activity leaves to do.
        steps: T, time steps of a sequence, instead of the data's mean (100 without either).

    Raises:
        UserError: something cannot be read, the recipe does not fit the model, or it needs data.
    """
    loaded = load_model(model)
    sequences = None if data is None else load_sequences(str(data))
    length = DEFAULT_STEPS if sequences is None else sequences.mean_length
    if steps is not None and not 1 <= steps <= MAX_STEPS:
        raise UserError(f"steps is {steps}", f"a whole number from 1 to {MAX_STEPS}")
    length = float(length if steps is None else steps)
    # What consists of terms is priced with all of them, as it is stored.
    refined = all_terms(loaded)
    compressed = loaded.numeric == "integer" or bool(refined)
    if compressed and recipe is not None:
        raise UserError(
            f"'{loaded.name}' {'consists of terms' if refined else 'is compressed'} already",
            "the uncompressed model with a recipe",
        )
    chosen = Recipe((), label="16 bits") if recipe is None else _read_recipe(recipe)
    as_it_is = compressed
    predicted: Cost | None = None
    if isinstance(platform, MeasuredPlatform):
        as_it_is = recipe is None
        cost, predicted = _measured(
            loaded, platform, None if as_it_is else chosen, sequences, length
        )
    elif compressed:
        program = build_program(loaded)
        profile = _profile(loaded, program, sequences)
        cost = platform.cost(program_table(program, profile, loaded, length))
    else:
        stats = None if sequences is None else calibrate(loaded, sequences)
        cost = Pricer(loaded, stats, platform, length).cost(chosen)
    priced: dict[str, Any] = strict_json(
        {
            "model": loaded.name,
            "recipe": None if as_it_is else chosen.to_json(),
            "terms": refined,
            "steps": length,
            "cost": cost.to_json(),
            **({} if predicted is None else {"predicted": predicted.to_json()}),
            "platform": dict(platform.description),
        }
    )
    return priced


def _measured(
    model: Model,
    platform: MeasuredPlatform,
    recipe: Recipe | None,
    data: Sequences | None,
    steps: float,
) -> tuple[Cost, Cost]:
    """Measured and predicted cost of a model as it is, or compressed by a recipe.

    Raises:
        UserError: there is a recipe and no data to compress with.
    """
    built = model
    if recipe is not None:
        if data is None:
            raise UserError(
                "a recipe is to be measured without data",
                "calibration data (--data), with which the model is compressed",
            )
        built = compress(model, recipe, calibrate(model, data)).model
    program = build_program(built)
    profile = _profile(built, program, data)
    cost = measure_program(platform, program, profile, model, data, steps)
    return cost, platform.cost(program_table(program, profile, model, steps))


def _profile(model: Model, program: Program, sequences: Sequences | None) -> Profile:
    """Counters of a compressed network: measured, or of one step where nothing is left out."""
    if sequences is not None:
        return run_network(model, sequences)[1]
    for site, product in program.products.items():
        if product.link is not None and product.link.activity is not None:
            raise UserError(
                f"the model computes only some products of {site}",
                "data, from which their share is known",
            )
    sizes = {site: product.geometry for site, product in program.products.items()}
    return Profile(1, 1, {site: SiteCounts(1, g.units, g.inputs) for site, g in sizes.items()})


def _read_recipe(path: Path) -> Recipe:
    return recipe_from_json(read_json_object(path))
