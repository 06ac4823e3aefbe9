"""Skipping zeros: only inputs that are not 0 are multiplied, and their weights read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from pydantic import ConfigDict, with_config

from modelflex.core.fixed import Array
from modelflex.core.recorder import Value
from modelflex.core.tracer import Activity, InputSite, Link, Product, Tracer
from modelflex.registry import ACTIVITIES


@final
@ACTIVITIES.register("nonzero")
@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Nonzero(Activity):
    """Leave out the inputs whose code is 0: of one-hot inputs, and of what follows a ReLU, most are.

    The results are those of the full product. There is no state: the bias is read at every run.
    """

    reference = (
        "Han et al., EIE: Efficient Inference Engine on Compressed Deep Neural Network, ISCA 2016, "
        "section III (dynamic sparsity of activations)"
    )
    search_range = {}

    def resolve(self, site: InputSite) -> Nonzero:
        return self

    @property
    def resolved(self) -> bool:
        return True

    def thresholds(self, site: InputSite) -> None:
        return None

    def threshold_count(self, inputs: int, block: int) -> int:
        return 0

    def lower(self, tracer: Tracer, product: Product, codes: Value) -> Value:
        out = ((product.outputs, "acc"),)
        return tracer.record("linear", (codes,), out, product.site, skip_zeros=True)[0]

    def replay(self, codes: Array, lengths: Array, block: int, link: Link) -> tuple[Array, Array]:
        return codes, codes != 0

    def state_bytes(self, out: int, inputs: int) -> int:
        return 0

    @property
    def stateful(self) -> bool:
        return False

    def naive(self) -> Nonzero:
        return self
