"""How well a compressed network still works."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Quality:
    """One figure with its interval.

    Attributes:
        metric: e.g. "accuracy", "perplexity", "kl", "relative_error".
        direction: "max" if more is better, else "min".
        value: the figure.
        interval: 95 % confidence interval (low, high); NaN where there is none (one sequence).
        n: independent items behind it (sequences).
    """

    metric: str
    direction: str
    value: float
    interval: tuple[float, float]
    n: int

    def to_json(self) -> dict[str, Any]:
        """A JSON object; an interval that is not known holds null."""
        return {
            "metric": self.metric,
            "direction": self.direction,
            "value": self.value,
            "interval": [v if math.isfinite(v) else None for v in self.interval],
            "n": self.n,
        }

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Quality:
        """The inverse of `to_json`."""
        low, high = (math.nan if v is None else v for v in values["interval"])
        return Quality(
            values["metric"], values["direction"], values["value"], (low, high), values["n"]
        )
