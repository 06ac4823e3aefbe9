"""A small search, run by the tests in processes of their own: python FILE OUT WORKERS [KILL_AFTER]."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

import modelflex
from modelflex.search.driver import Progress
from modelflex.testing.generators import random_model, random_sequences


def run(out: Path | None, workers: int, kill_after: int = 0) -> Any:
    """Search 24 recipes (and their naive twins); `kill_after` ends this process as `kill -9` does."""
    rng = np.random.default_rng(7)
    model = random_model(rng, ["gru"])
    calibration, validation, test = (random_sequences(rng, [11, 7, 9] * 3, 8, 4) for _ in range(3))
    grid = {
        "name": "small",
        "vary": {"bits": [2, 4, 8], "theta": [0.0, 0.2, 0.4, 0.8], "block": [1, 4]},
        "rules": [
            {
                "weights": "*.w_?",
                "structure": {"method": "circulant", "block": "$block"},
                "format": {"method": "uniform", "bits": "$bits", "scales": "gate"},
                "activity": {"method": "delta", "threshold": "$theta", "unit": "std"},
            },
            {"weights": "*.w", "format": {"method": "uniform", "bits": 8}},
        ],
        "recalibrate": 2,
    }

    def tell(progress: Progress) -> None:
        if kill_after and progress.done == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    return modelflex.search(
        model,
        calibration=calibration,
        validation=validation,
        test=test,
        limits={"max": {"divergence": 0.3}},
        space=[grid],
        seed=5,
        workers=workers,
        exhaustive=True,
        out=out,
        tell=tell,
    )


if __name__ == "__main__":
    arguments = [int(a) for a in sys.argv[2:]]
    found = run(Path(sys.argv[1]), *arguments)
    print(json.dumps(found.summary()))
