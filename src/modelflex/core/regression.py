"""The weighted least squares to which structures are fitted, alone and as terms of a sum."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from modelflex.core.extension import Fit
from modelflex.core.fixed import Array
from modelflex.core.gptq import damping
from modelflex.errors import UserError

MAX_INPUTS = 1 << 13
"""Inputs that a fit may weigh together: their moments are 512 MiB in binary64, and a fit holds about
eight such matrices. Even one-hot inputs have dense ones: what is fitted to is the covariance, and that
of a product beside others.
"""


def check_inputs(what: str, inputs: int) -> None:
    """Refuse a fit whose matrices of inputs × inputs would not fit into memory.

    Raises:
        UserError: more than `MAX_INPUTS`.
    """
    if inputs > MAX_INPUTS:
        raise UserError(
            f"{what} {inputs} inputs",
            f"at most {MAX_INPUTS} for what is fitted",
            "keep these weights dense by fit = 'copy' and round them to the nearest",
        )


@dataclass(frozen=True, eq=False)
class Regression:
    """tr((A − T)·G·(A − T)ᵀ) is to be small, with T = R·G⁻¹.

    Attributes:
        gram: G [in, in], positive definite.
        wanted: R [out, in].
    """

    gram: Array
    wanted: Array

    @classmethod
    def of(cls, fit: Fit, aware: bool, ridge: float) -> Regression:
        """The products that are wanted of a weight, pulled towards the trained matrix; without data
        (or where `aware` is false) every entry of the trained matrix weighs the same.

        Args:
            ridge: of the pull, as a share of each input's variance; it is damped besides, so that
                constant and dependent inputs do no harm.

        Raises:
            UserError: see `check_inputs`.
        """
        out, inputs = fit.matrix.shape
        check_inputs(f"a weight of {out} rows is fitted to", inputs)
        if fit.moments is None or not aware:
            return cls(np.eye(inputs), fit.matrix)
        cov = fit.moments.cov_z
        pull = ridge * np.diag(cov) + damping(cov)
        return cls(cov + np.diag(pull), fit.moments.cov_tz + fit.matrix * pull)

    @property
    def target(self) -> Array:
        """T, what an unstructured matrix would be."""
        return np.asarray(np.linalg.solve(self.gram, self.wanted.T).T)

    def less(self, term: Array) -> Regression:
        """What is left to fit when the matrix `term` [out, in] is added to A."""
        return replace(self, wanted=self.wanted - term @ self.gram)

    def error(self, matrix: Array) -> float:
        """tr(A·G·Aᵀ) − 2·tr(A·Rᵀ): the squared error up to a constant."""
        return float(np.sum(matrix * (matrix @ self.gram - 2 * self.wanted)))


def remainder(fit: Fit, term: Array) -> Fit:
    """What is left to fit of a weight when the matrix `term` [out, in] is added to what stands for it."""
    moments = fit.moments
    if moments is not None:
        moments = replace(moments, cov_tz=moments.cov_tz - term @ moments.cov_z)
    return replace(fit, matrix=fit.matrix - term, moments=moments)


def check_ridge(ridge: float) -> None:
    """Refuse a pull that is none.

    Raises:
        UserError: negative, infinite or no number.
    """
    if not 0 <= ridge < float("inf"):
        raise UserError(f"ridge is {ridge}", "a finite number ≥ 0")
