"""The dense structure: every number of the matrix is stored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, final

import numpy as np
from pydantic import ConfigDict, with_config

from modelflex.core.extension import Format, Moments, Structure, damping
from modelflex.core.fixed import Array
from modelflex.core.layout import Geometry, geometry
from modelflex.core.tracer import Link
from modelflex.core.weight import Matrix
from modelflex.errors import UserError
from modelflex.registry import STRUCTURES


@final
@STRUCTURES.register("dense")
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Dense(Structure):
    """A matrix [out, in].

    Attributes:
        fit: "copy" stores the trained matrix; "least_squares" the matrix that best predicts the
            original products from the inputs that the compressed network really multiplies.
        ridge: pull towards the trained matrix, as a share of the input's variances.
    """

    fit: Literal["copy", "least_squares"] = "copy"
    ridge: float = 0.05

    reference = "closed-form recalibration: ridge regression of W·z_o on z_c"
    search_range = {"fit": ("copy", "least_squares")}

    def __post_init__(self) -> None:
        if not 0 <= self.ridge < float("inf"):
            raise UserError(f"ridge is {self.ridge}", "a finite number ≥ 0")

    def geometries(self, out: int, inputs: int) -> tuple[tuple[str, Geometry], ...]:
        return (("dense", geometry("dense", out, inputs)),)

    def fit_weight(
        self,
        matrix: Array,
        moments: Moments | None,
        encode: Format,
        gates: int,
        links: tuple[Link, ...],
    ) -> Matrix:
        target, hessian = matrix, None
        if moments is not None:
            hessian = moments.cov_z
            if self.fit == "least_squares":
                pull = self.ridge * np.diag(hessian) + damping(hessian)
                wanted = moments.cov_tz + matrix * pull
                target = np.linalg.solve(hessian + np.diag(pull), wanted.T).T
        return Matrix((encode.encode(target, hessian, gates),), None, links, gates, "dense")

    def naive(self) -> Dense:
        return replace(self, fit="copy")

    @property
    def data_aware(self) -> bool:
        return self.fit == "least_squares"
