"""Squared errors of an affine map's results, over the inputs that it sees: tr(E·H·Eᵀ)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np

from modelflex.core.fixed import Array
from modelflex.core.gptq import damping
from modelflex.errors import UserError

DAMPING = 0.01


@final
@dataclass(frozen=True, eq=False)
class InputMetric:
    """H = ZᵀZ/n + d·I of inputs Z, kept as the matrix or, where Z has fewer rows than columns, as Z.

    Attributes:
        mean: float64 [in], what was subtracted from the inputs before their moments were taken; None
            for moments about zero.
        moment: H [in, in] with its damping; None where `sample` stands for it.
        sample: Z/√n [n, in]; None where `moment` is kept.
        damped: d > 0.
    """

    mean: Array | None
    moment: Array | None
    sample: Array | None
    damped: float

    @classmethod
    def of(cls, sample: Array, *, centred: bool = True, share: float = DAMPING) -> InputMetric:
        """The metric of a sample of inputs [n, in].

        Args:
            centred: about the sample's mean, else about zero.
            share: d, as a share of the mean of H's diagonal.

        Raises:
            UserError: no rows, numbers that are not finite, or a share that is not above zero.
        """
        z = np.asarray(sample, np.float64)
        if z.ndim != 2 or not z.size or not np.all(np.isfinite(z)):
            raise UserError(
                f"the sample of inputs has the shape {z.shape}", "finite numbers [n ≥ 1, inputs]"
            )
        if not 0 < share < float("inf"):
            raise UserError(f"the damping is {share}", "a finite number above 0")
        mean = z.mean(axis=0) if centred else None
        z = (z if mean is None else z - mean) / np.sqrt(len(z))
        if len(z) < z.shape[1]:
            power = float(np.mean(np.square(z).sum(axis=0)))
            return cls(mean, None, z, share * power if power > 0 else 1.0)
        moment = z.T @ z
        damped = damping(moment, share)
        moment[np.diag_indices_from(moment)] += damped
        return cls(mean, moment, None, damped)

    @classmethod
    def plain(cls, inputs: int) -> InputMetric:
        """H = I: every entry of a matrix weighs the same."""
        return cls(None, None, np.zeros((0, inputs)), 1.0)

    def with_constant(self) -> InputMetric:
        """The metric of these inputs without their mean, and of one more that is always 1."""
        if self.moment is not None:
            moment = np.zeros((self.inputs + 1, self.inputs + 1))
            moment[:-1, :-1], moment[-1, -1] = self.moment, 1.0 + self.damped
            return InputMetric(None, moment, None, self.damped)
        sample = np.zeros((len(self._held) + 1, self.inputs + 1))
        sample[:-1, :-1], sample[-1, -1] = self._held, 1.0
        return InputMetric(None, None, sample, self.damped)

    @property
    def inputs(self) -> int:
        """Columns of the matrices that are measured."""
        held = self.sample if self.moment is None else self.moment
        return int(held.shape[1])  # type: ignore[union-attr]

    @property
    def diagonal(self) -> Array:
        """H_jj [in]."""
        if self.moment is not None:
            return np.diag(self.moment)
        return np.square(self._held).sum(axis=0) + self.damped

    @property
    def _held(self) -> Array:
        if self.sample is None:
            raise ValueError("the metric keeps neither a moment nor a sample")
        return self.sample

    def times(self, rows: Array) -> Array:
        """E·H of E [..., in]."""
        if self.moment is not None:
            return np.asarray(rows @ self.moment)
        z = self._held
        return np.asarray((rows @ z.T) @ z + self.damped * rows)

    def error(self, rows: Array) -> float:
        """tr(E·H·Eᵀ) of E [rows, in]."""
        return float(np.sum(self.times(rows) * rows))

    def solver(self, columns: Array) -> Callable[[Array], Array]:
        """b [S] → H_SS⁻¹·b, with H restricted to the columns S."""
        if self.moment is not None:
            inverse = np.linalg.inv(self.moment[np.ix_(columns, columns)])
            return lambda right: np.asarray(inverse @ right)
        z, damped = self._held[:, columns], self.damped
        if len(z) < len(columns):  # Woodbury: (ZᵀZ + d·I)⁻¹ = (I − Zᵀ(ZZᵀ + d·I)⁻¹Z)/d
            inverse = np.linalg.inv(z @ z.T + damped * np.eye(len(z)))
            return lambda right: np.asarray((right - z.T @ (inverse @ (z @ right))) / damped)
        inverse = np.linalg.inv(z.T @ z + damped * np.eye(len(columns)))
        return lambda right: np.asarray(inverse @ right)
