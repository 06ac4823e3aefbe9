"""Structured optimal brain surgeon: drop the unit that the others can best stand in for, again and again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from pydantic import ConfigDict, with_config

from modelflex.core.extension import Removal
from modelflex.core.fixed import Array
from modelflex.core.gptq import damping
from modelflex.errors import UserError
from modelflex.registry import REMOVALS


@final
@REMOVALS.register("obs")
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class OptimalBrainSurgeon(Removal):
    """Remove argmin_j ‖A_:j‖² / (H⁻¹)_jj, correct the others by A −= A_:j (H⁻¹)_j: / (H⁻¹)_jj, and
    take j out of H⁻¹; A are the outgoing weights, H the damped covariance of the units.

    Attributes:
        units: how many stay.
    """

    units: int

    reference = (
        "Hassibi & Stork, Second order derivatives for network pruning: Optimal Brain Surgeon, "
        "NIPS 1992, with a unit's column in place of a weight"
    )
    search_range = {"units": (8, 16, 32, 64, 128)}

    def __post_init__(self) -> None:
        if self.units < 1:
            raise UserError(f"{self.units} units are to stay", "at least 1")

    def kept(self, outgoing: Array, covariance: Array, seed: int) -> Array:
        n = covariance.shape[0]
        # Only Aᵀ·A is needed: the outgoing columns' products, corrected in step with H⁻¹.
        gram = outgoing.T @ outgoing
        inverse = np.linalg.inv(covariance + damping(covariance) * np.eye(n))
        stays = np.ones(n, bool)
        for _ in range(n - self.units):
            own = np.diag(inverse)
            loss = np.where(stays, np.diag(gram) / np.where(stays, own, 1.0), np.inf)
            j = int(np.argmin(loss))
            share = inverse[j] / own[j]
            column = gram[:, j].copy()
            gram = gram - np.outer(column, share) - np.outer(share, column)
            gram += column[j] * np.outer(share, share)
            inverse = inverse - np.outer(inverse[j], share)
            stays[j] = False
            inverse[j], inverse[:, j] = 0.0, 0.0
        return np.flatnonzero(stays)

    def naive(self) -> Removal:
        by_norm: Removal = REMOVALS.get("norm")(self.units)
        return by_norm
