"""References of what a search used."""

from __future__ import annotations

from modelflex.core.model import Model
from modelflex.core.platform import Platform
from modelflex.core.trial import Trial
from modelflex.registry import ACTIVITIES, FORMATS, PLATFORMS, STRUCTURES


def references(model: Model, trial: Trial, platform: Platform) -> dict[str, str]:
    """Name → reference of the cells, the methods of a trial's recipe, and the platform."""
    found = {layer.kind: layer.plugin.reference for layer in model.layers}
    for rule in trial.recipe.rules:
        choice = rule.choice
        for registry, config in (
            (STRUCTURES, choice.structure),
            (FORMATS, choice.format),
            (ACTIVITIES, choice.activity),
        ):
            if config is not None:
                found[registry.name_of(type(config))] = config.reference
    found[PLATFORMS.name_of(type(platform))] = platform.reference
    return found
