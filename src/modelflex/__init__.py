"""ModelFlex: fits a trained recurrent network into an edge device's budget without retraining.

import modelflex
model = modelflex.load(lstm, head=linear)              # torch modules, or a path
study = modelflex.search(model, calibration=..., validation=..., limits={...})
study.best, study.report("report.html"), study.save("best")
modelflex.run("best", sequences)                       # outputs of the integers that ship
runtime = modelflex.compile("best")                    # compiled code: runtime.step(x), runtime.run(xs)
"""

from __future__ import annotations

from modelflex.core.recipe import Recipe, recipe_from_json
from modelflex.errors import UserError
from modelflex.execute.native import Runtime
from modelflex.importers.data import load_sequences
from modelflex.importers.models import load_model as load
from modelflex.pipeline import Result, retarget, run, search
from modelflex.pipeline import compile_model as compile  # noqa: A004

__all__ = [
    "Recipe",
    "Result",
    "Runtime",
    "UserError",
    "compile",
    "load",
    "load_sequences",
    "recipe_from_json",
    "retarget",
    "run",
    "search",
]
