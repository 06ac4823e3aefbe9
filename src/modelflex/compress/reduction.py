"""Removal of hidden units: which stay, and the network and calibration statistics without the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from modelflex.compress.choices import Axes, reduced_layers, removals, weight_axes
from modelflex.core.fixed import Array
from modelflex.core.model import Model
from modelflex.core.recipe import Recipe
from modelflex.core.stats import SiteStats, Stats, spread


@dataclass(frozen=True, eq=False)
class Reduced:
    """A network without some of its units.

    Attributes:
        model: the layers as they are left, with the *trained* weights of the whole network.
        rows, columns: weight → numbers of the rows and columns that stay.
        sites: what the weights see of the trace, at the columns that stay.
    """

    model: Model
    rows: Mapping[str, Array]
    columns: Mapping[str, Array]
    sites: Mapping[str, SiteStats]

    def kept_rows(self, name: str) -> Array:
        """The trained rows of a weight that stay, with all their columns: float64 [out′, in]."""
        return self.model.weights[name].dense()[self.rows[name]]

    def matrix(self, name: str) -> Array:
        """What stays of a trained weight: float64 [out′, in′]."""
        return self.kept_rows(name)[:, self.columns[name]]


def reduce(model: Model, recipe: Recipe, stats: Stats) -> Reduced:
    """Choose the units that stay, layer by layer from the first.

    Raises:
        UserError: see `removals`.
    """
    axes, kept = weight_axes(model), {}
    for number, (layer, removal) in enumerate(removals(model, recipe).items()):
        outgoing, covariance = _layer_problem(model, layer, axes, stats)
        kept[layer] = removal.kept(outgoing, covariance, number)
    rows, columns, sites = {}, {}, {}
    for name, weight in model.weights.items():
        out, inputs = weight.shape
        own = axes[name]
        rows[name] = _spread(kept.get(own.rows), own, out)
        columns[name] = kept[own.columns] if own.columns in kept else np.arange(inputs)
        sites[name] = stats.sites[name]
        if own.columns in kept:
            sites[name] = at_columns(sites[name], columns[name])
    layers = reduced_layers(model, recipe)
    return Reduced(replace(model, layers=layers), rows, columns, sites)


def _spread(kept: Array | None, axes: Axes, out: int) -> Array:
    """The rows of a weight that stay, gate after gate."""
    if kept is None:
        return np.arange(out)
    units = out // axes.row_groups
    return (np.arange(axes.row_groups)[:, None] * units + kept[None, :]).ravel()


def at_columns(site: SiteStats, columns: Array) -> SiteStats:
    """What a weight sees that keeps only some of its columns."""
    if columns.size == site.trace.shape[1]:
        return site
    trace = np.ascontiguousarray(site.trace[:, columns])
    peak = max(float(np.abs(trace).max(initial=0.0)), site.peak * 2.0**-8)
    return replace(site, trace=trace, std=spread(trace), peak=peak)


def _layer_problem(
    model: Model, layer: str, axes: Mapping[str, Axes], stats: Stats
) -> tuple[Array, Array]:
    """What acts on the readers of a layer's output, row by row, and the output's covariance."""
    readers = [name for name, a in axes.items() if a.columns == layer]
    scaled = [
        np.sqrt(stats.sites[name].importance)[:, None] * model.weights[name].dense()
        for name in readers
    ]
    # The reader that sees the most steps shows the output best.
    trace = max((stats.sites[name].trace for name in readers), key=len).astype(np.float64)
    return np.vstack(scaled), np.atleast_2d(np.cov(trace.T, bias=True))
