"""Says whether an installed package works: python smoke_test.py [--pure], from any folder.

Runs small networks in pure Python and, unless --pure says that the installation has no compiled code, in
that too, step by step. Needs nothing but the package.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

import modelflex
from modelflex.core.data import Sequences
from modelflex.execute.interpret import Interpreter
from modelflex.execute.kernels import HAVE_NATIVE, NATIVE_ERROR
from modelflex.export.artefact import save_artefact
from modelflex.testing.recipes import cached_case

STEPS = 30
SEEDS = range(4)


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--pure", action="store_true", help="the installation has no native kernels"
    )
    pure = parser.parse_args().pure
    if pure == HAVE_NATIVE:
        found = "are there" if HAVE_NATIVE else f"are not there ({NATIVE_ERROR})"
        sys.exit(f"smoke test: the native kernels {found}")
    for seed in SEEDS:
        case = cached_case(seed)
        x = np.random.default_rng(seed).normal(size=(STEPS, case.model.inputs))
        data = Sequences(x.astype(np.float32), np.array([STEPS]))
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent) / "best"
            save_artefact(case.made.model, folder, recipe=case.recipe, provenance={})
            wanted = Interpreter(case.program).run(data).outputs[-1]
            if not pure:
                step = modelflex.compile(folder).step
                found = [step(row.astype(np.float64)) for row in data.x][-1]
                np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    sys.stdout.write(f"smoke test: {len(SEEDS)} networks, {'pure Python' if pure else 'native'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
