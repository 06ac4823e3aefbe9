"""Measure what the driving network gives after a part of its operations: curves, moments, drives.

    python examples/driving/measure.py [--data FOLDER] [--worlds 24]

Needs what train.py wrote into the folder. Everything is fitted on pilot clips, divergences are of the test
clips, drives are in worlds that no clip is of. Writes examples/driving/results.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from approximations import (
    PUBLISHED_KEPT,
    Approximation,
    Decomposed,
    column_tiles,
    data_aware,
    fisher_information,
    prefixes,
    published,
    row_tiles,
    seen_by,
)
from clips import data_folder, load_clips
from drive import Outcome, drive_all, drive_worlds
from recurrent import (
    Encoder,
    Recurrent,
    divergences,
    load_features,
    load_recurrent,
    probabilities,
)
from roads import Bytes, Floats

from modelflex.core.files import replacing

RESULTS = Path(__file__).resolve().parent / "results.json"
SAMPLE_STEP = 2
"""Every so many steps of the pilot clips are the sample that terms are fitted to."""
TILES = "dense, tiles of columns"
DRIVEN = {
    "dense, cut short": (0.25, 0.5, 0.75, 0.875),
    "published": (0.004, 0.017, 0.065, 0.255, 0.51),
    "data-aware, actions": (0.0041, 0.0082, 0.0164, 0.0328, 0.0655, 0.129, 0.258),
    "data-aware, all outputs": (0.0, 0.0041, 0.0082, 0.0164, 0.0328, 0.0655, 0.129, 0.258),
}
"""Scheme → shares of the dense operations at which worlds are driven."""
SETTLED = 20
"""Steps before the first that a moment is taken from."""
STEPS = 150
SHARES = (0.0082, 0.0164, 0.0655, 0.255)
"""Shares of the dense operations after which moments are shown."""


class Policy:
    """Encoder, approximated LSTM and head; keeps the state of every drive."""

    def __init__(self, encoder: Encoder, recurrent: Recurrent, w: Floats, bias: Floats) -> None:
        self.encoder, self.recurrent = encoder, recurrent
        self.w, self.bias = w.astype(np.float32), bias.astype(np.float32)
        self.state: tuple[Floats, Floats, Floats] | None = None

    def __call__(self, frames: Bytes, scalars: Floats) -> tuple[Floats, Floats]:
        features = self.encoder(frames, scalars)
        state = self.recurrent.start(len(frames)) if self.state is None else self.state
        seen = features @ self.w[:, : self.recurrent.features].T + self.bias
        y, self.state = self.recurrent.step(self.recurrent.gates(seen, state, self.w), state)
        p = probabilities(y)
        return p, y[:, p.shape[1] :]


def decompositions(folder: Path, recurrent: Recurrent) -> dict[str, Decomposed]:
    """The terms of all schemes that have them by name, fitted on the pilot clips."""
    pilot, clips = load_features(folder, "pilot"), load_clips("pilot", folder)
    sample = seen_by(recurrent, pilot)[::SAMPLE_STEP]
    wrong = recurrent.run(pilot)[..., -clips.velocities.shape[-1] :] - clips.velocities
    errors = np.sqrt(np.square(wrong).mean((0, 1)))
    made = {f"published, NZ = {kept}": published(recurrent, kept) for kept in PUBLISHED_KEPT}
    for name, deviations in (("actions", None), ("all outputs", errors)):
        fisher = fisher_information(folder, pilot, deviations)
        made[f"data-aware, {name}"] = data_aware(recurrent, sample, fisher)
    return made


def schemes(folder: Path, recurrent: Recurrent) -> dict[str, list[Approximation]]:
    """All schemes by name."""
    tiles = {"dense, tiles of rows": row_tiles(recurrent), TILES: column_tiles(recurrent)}
    made = decompositions(folder, recurrent)
    return tiles | {name: prefixes(recurrent, one) for name, one in made.items()}


def curve(
    recurrent: Recurrent,
    features: Floats,
    exact: Floats,
    actions: Floats,
    steps: Sequence[Approximation],
) -> list[dict[str, Any]]:
    """Divergence from the exact network and accuracy after every step of a scheme."""
    rows = []
    for step in steps:
        outputs = recurrent.run(features, *step.make())
        kl = divergences(exact, outputs)
        rows.append(
            {
                "operations": step.operations,
                "terms": step.terms,
                "kl": float(kl.mean()),
                "kl_median": float(np.median(kl)),
                "kl_p90": float(np.quantile(kl, 0.9)),
                "accuracy": float((probabilities(outputs).argmax(-1) == actions).mean()),
            }
        )
    return rows


def moments(
    recurrent: Recurrent,
    features: Floats,
    exact: Floats,
    made: Mapping[str, Sequence[Approximation]],
    shown: Mapping[str, Sequence[str]],
    shares: Sequence[float],
) -> list[dict[str, Any]]:
    """Distributions over actions after shares of the operations, at a typical step of each action: of the
    steps at which it is the most probable one, that with the median of its probability.

    Args:
        shown: scheme → what of `made` is used at each share.
    """
    dense, p = 2 * recurrent.w.size, probabilities(exact)
    found = []
    for action in range(p.shape[2]):
        likely = p[:, SETTLED:].argmax(-1) == action
        clips, steps = np.nonzero(likely)
        order = np.argsort(p[:, SETTLED:, action][likely], kind="stable")
        clip, at = clips[order[order.size // 2]], int(steps[order[order.size // 2]]) + SETTLED
        part = features[clip : clip + 1, : at + 1]
        entry: dict[str, Any] = {"clip": int(clip), "step": at, "action": action}
        entry["exact"] = p[clip, at].tolist()
        for scheme, names in shown.items():
            entry[scheme] = []
            for name, share in zip(names, shares, strict=True):
                w, bias = within(made[name], share * dense).make()
                found_p = probabilities(recurrent.run(part, w, bias))[0, at]
                entry[scheme].append(found_p.tolist())
        found.append(entry)
    return found


def within(steps: Sequence[Approximation], operations: float) -> Approximation:
    """The last step of a scheme that so many operations allow."""
    return [step for step in steps if step.operations <= operations * (1 + 1e-9)][-1]


def told(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Figures of some drives."""
    failures = Counter(outcome.failure for outcome in outcomes if outcome.failure)
    metres = sum(outcome.metres for outcome in outcomes)
    return {
        "drives": len(outcomes),
        "failures": dict(sorted(failures.items())),
        "failed": sum(failures.values()) / len(outcomes),
        "metres": round(metres, 1),
    }


def best_published(curves: Mapping[str, list[dict[str, Any]]], operations: float) -> str:
    """The published scheme's NZ with the lowest divergence on pilot clips within some operations."""
    reached = {
        name: min(row["kl"] for row in rows if row["operations"] <= operations * (1 + 1e-9))
        for name, rows in curves.items()
        if name.startswith("published")
    }
    return min(reached, key=lambda name: reached[name])


def drive_schemes(
    folder: Path,
    recurrent: Recurrent,
    made: Mapping[str, Sequence[Approximation]],
    pilot_curves: Mapping[str, list[dict[str, Any]]],
    count: int,
) -> list[dict[str, Any]]:
    """Closed-loop drives of every scheme at its shares of the operations, and of the exact network."""
    encoder, worlds, dense = Encoder(folder), drive_worlds(count), 2 * recurrent.w.size
    rows = []

    def driven(scheme: str, name: str, share: float, w: Floats, bias: Floats, terms: Any) -> None:
        outcomes = drive_all(worlds, Policy(encoder, recurrent, w, bias), STEPS)
        rows.append(
            {"scheme": scheme, "of": name, "share": share, "terms": terms, **told(outcomes)}
        )
        print(json.dumps(rows[-1]), flush=True)

    driven("exact", "exact", 1.0, recurrent.w, recurrent.bias, None)
    for scheme, shares in DRIVEN.items():
        for share in shares:
            name = TILES if scheme.startswith("dense") else scheme
            if scheme == "published":
                name = best_published(pilot_curves, share * dense)
            step = within(made[name], share * dense)
            driven(scheme, name, step.operations / dense, *step.make(), step.terms)
    return rows


def update_results(**values: Any) -> None:
    """Put values into results.json beside what is there."""
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    with replacing(RESULTS) as temporary:
        temporary.write_text(json.dumps(known | values, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Measure the driving network under deadlines.")
    parser.add_argument("--data", type=Path, help="folder of recordings and trained networks")
    parser.add_argument("--worlds", type=int, default=24, help="worlds of the closed-loop drives")
    parser.add_argument("--no-drives", action="store_true", help="curves and moments alone")
    options = parser.parse_args()
    folder, started = data_folder(options.data), time.perf_counter()
    recurrent = load_recurrent(folder)
    dense = 2 * recurrent.w.size
    made = schemes(folder, recurrent)
    curves: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for part in ("pilot", "test"):
        features = load_features(folder, part).astype(np.float32)
        actions = load_clips(part, folder).actions
        exact = recurrent.run(features)
        curves[part] = {
            name: curve(recurrent, features, exact, actions, steps)
            for name, steps in made.items()
            if part == "test" or name.startswith("published")  # what is chosen on pilot clips
        }
        print(f"{part}: {time.perf_counter() - started:.0f} s", flush=True)
    shown = {
        "dense, cut short": [TILES] * len(SHARES),
        "published": [best_published(curves["pilot"], share * dense) for share in SHARES],
        "data-aware, actions": ["data-aware, actions"] * len(SHARES),
    }
    model = json.loads((folder / "network" / "model.json").read_text(encoding="utf-8"))
    update_results(
        dense_operations=dense,
        scores=model["meta"]["scores"],
        curves=curves,
        shares=SHARES,
        moments=moments(recurrent, features, exact, made, shown, SHARES),
    )
    if not options.no_drives:
        drives = drive_schemes(folder, recurrent, made, curves["pilot"], options.worlds)
        update_results(drives=drives)
    print(f"wrote {RESULTS}; {time.perf_counter() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
