"""The dense structure: every number of the matrix is stored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, final

from pydantic import ConfigDict, with_config

from modelflex.core.extension import Fit, Planned, Structure
from modelflex.core.layout import dense_geometry
from modelflex.core.regression import Regression, check_ridge
from modelflex.core.weight import Matrix
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
        check_ridge(self.ridge)

    def plan(self, out: int, inputs: int) -> tuple[Planned, ...]:
        return (Planned("dense", dense_geometry(out, inputs)),)

    def fit_weight(self, fit: Fit) -> Matrix:
        solved = self.data_aware and fit.moments is not None
        target = Regression.of(fit, True, self.ridge).target if solved else fit.matrix
        part = fit.encode.encode(target, fit.hessian, fit.gates)
        return Matrix(part, None, fit.link, fit.gates, "dense", fit.matrix.shape[1])

    def naive(self) -> Dense:
        return replace(self, fit="copy")

    @property
    def data_aware(self) -> bool:
        return self.fit == "least_squares"
