"""KL divergence of the driving LSTM after each term, for progressive_fpga.py --curves.

    python benchmarks/_fpga_driving.py FOLDER OUT.npz [--terms 100] [--nz 32 130 …]
    python benchmarks/_fpga_driving.py FOLDER OUT.npz --data-aware --nz 8320

FOLDER is the driving model's cache (examples/driving): lstm/, features_pilot.npy, features_test.npy.
`kl` is the mean over all steps of the pilot clips, `check` over those of the test clips; predicted
velocities are fed back as the approximated network predicts them. Published: each gate has a v of its own;
data-aware: one for all gates, fitted to the pilot clips' inputs and the information of the actions.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelflex.core.files import replacing
from modelflex.core.fixed import Array
from modelflex.core.input_metric import InputMetric
from modelflex.core.refinement import Factors, decompose

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples" / "driving"))

from approximations import fisher_information, seen_by
from recurrent import Recurrent, divergences, load_recurrent

GATES, SAMPLE_STEP = 4, 2
NZ = (32, 130, 166, 520, 1040, 4160, 8320)
"""Of 8320: those of the published rows, 2 % and whole ones."""
DENSE_ROWS = (8, 16, 24, 32, 40, 48, 52, 56, 58, 60, 61, 62, 63, 64)


class Clips:
    """Clips of one part, and what the whole network says of them."""

    def __init__(self, network: Recurrent, path: Path) -> None:
        self.features = np.load(path).astype(np.float32)
        self.exact = network.run(self.features)

    def mean_kl(self, network: Recurrent, seen: Array, w: Array, bias: Array) -> float:
        """Of the network with the matrix `w`, by what the features give, `seen` [N, T, 4·units]."""
        state, made = network.start(len(seen)), []
        for t in range(seen.shape[1]):
            y, state = network.step(network.gates(seen[:, t] + bias, state, w), state)
            made.append(y)
        return float(divergences(self.exact, np.stack(made, 1)).mean())


def prefixes(network: Recurrent, factors: Factors, parts: list[Clips]) -> Iterator[list[float]]:
    """The divergence in all parts after each term."""
    groups, columns = factors.groups, network.features
    size = GATES * network.units // groups
    v = factors.v.astype(np.float32)
    dots = [part.features @ v[:, :columns].T for part in parts]
    seen = [np.zeros((*part.features.shape[:2], len(network.w)), np.float32) for part in parts]
    w = np.zeros_like(network.w)
    for n in range(factors.terms):
        for g in range(groups):
            rows, u = slice(g * size, (g + 1) * size), factors.u[:, n].astype(np.float32)
            w[rows] += np.outer(u[rows], v[n * groups + g])
            for part, dot in zip(seen, dots, strict=True):
                part[..., rows] += dot[..., n * groups + g, None] * u[rows]
        bias = network.bias + factors.bias(n + 1).astype(np.float32)
        yield [part.mean_kl(network, s, w, bias) for part, s in zip(parts, seen, strict=True)]


def dense_rows(network: Recurrent, rows: int, parts: list[Clips]) -> list[float]:
    """The divergence where only the first rows of each gate are computed; the others have their bias."""
    w = network.w.copy()
    w.reshape(GATES, network.units, -1)[:, rows:] = 0
    return [float(divergences(part.exact, network.run(part.features, w)).mean()) for part in parts]


def measured(
    network: Recurrent, parts: list[Clips], terms: int, kept: Sequence[int], more: dict[str, Any]
) -> Iterator[tuple[Any, ...]]:
    """Rows (nz, steps, kl of every part); nz 0 for rows of the dense product.

    Args:
        more: further arguments of `decompose`.
    """
    for rows in DENSE_ROWS:
        yield (0, rows, *dense_rows(network, rows, parts))
    for nz in kept:
        factors = decompose(network.w, terms=terms, kept=nz, **more)
        for n, found in enumerate(prefixes(network, factors, parts), 1):
            yield (nz, n, *found)
        print(f"NZ {nz}: {factors.terms} terms, KL {found[0]:.2e}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data-aware", action="store_true")
    parser.add_argument("--terms", type=int, default=100)
    parser.add_argument("--nz", type=int, nargs="+", default=NZ)
    options = parser.parse_args()
    network = load_recurrent(options.folder)
    parts = [Clips(network, options.folder / f"features_{p}.npy") for p in ("pilot", "test")]
    more: dict[str, Any] = {"scheme": "published", "groups": GATES}
    if options.data_aware:
        features = parts[0].features
        metric = InputMetric.of(seen_by(network, features)[::SAMPLE_STEP])
        fisher = fisher_information(options.folder, features)
        more = {"scheme": "whitened", "groups": 1, "metric": metric, "importance": fisher}
    rows = list(measured(network, parts, options.terms, options.nz, more))
    nz, steps, kl, check = (np.array(column) for column in zip(*rows, strict=True))
    with replacing(options.out) as temporary, temporary.open("wb") as file:
        np.savez(file, nz=nz, steps=steps, kl=kl, check=check, shared=options.data_aware)


if __name__ == "__main__":
    main()
