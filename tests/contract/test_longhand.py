"""LSTM and GRU written out by hand, in integers and in floats, against the interpreter."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from modelflex.calibrate import calibrate
from modelflex.compress import compress
from modelflex.core.model import Model
from modelflex.core.program import build_program
from modelflex.core.recipe import Recipe, recipe_from_json
from modelflex.execute.interpret import run
from modelflex.testing.generators import random_model, random_sequences

N_IN, UNITS = 4, 8
TANH = [min(round(32768 * math.tanh(i / 32)), 32767) for i in range(257)]


def rsh(a: int, s: int) -> int:
    return (a + (1 << (s - 1))) >> s if s >= 1 else a << -s


def sat(a: int) -> int:
    return max(-(1 << 31), min((1 << 31) - 1, a))


def tanh(x: int) -> int:
    a = min(abs(x), (1 << 19) - 1)
    i, f = a >> 11, a & 2047
    y = 2 * TANH[i] + rsh((TANH[i + 1] - TANH[i]) * f, 10)
    return y if x >= 0 else -y


def sigmoid(x: int) -> int:
    return 32768 + rsh(tanh(rsh(x, 1)), 1)


def mul(a: int, b: int) -> int:
    return sat(rsh(a * b, 16))


class Product:
    """acc = bias + A·x̂ by the delta rule, one column at a time, M carried and never computed anew."""

    def __init__(self, weight: Any, delta: tuple[float, bool] | None) -> None:
        part, link = weight.parts[0], weight.links[0]
        codes = part.codes
        if codes.ndim == 3:
            p, q, b = codes.shape
            self.block = b
            self.A = [
                [int(codes[i // b, k // b, (i - k) % b]) for k in range(q * b)]
                for i in range(p * b)
            ]
        else:
            self.block = 1
            self.A = codes.tolist()
        rows, columns = len(self.A), len(self.A[0])
        scale = part.scale.mantissa
        self.bits = link.bits
        s_x = int(link.scale.mantissa[0]) * 2.0**-link.scale.exponent
        factors = [
            int(scale[r * scale.size // rows]) * 2.0**-part.scale.exponent * s_x * 65536
            for r in range(rows)
        ]
        self.mu, self.s = self.multiplier(factors)
        (self.mu_x,), self.s_x = self.multiplier([1 / (s_x * 65536)])
        self.M = [0] * rows
        if weight.bias is not None:
            shift = -weight.bias.scale.exponent
            self.M = [int(b) << shift for b in weight.bias.codes]
        self.bias = list(self.M)
        self.delta = delta
        self.theta = 0 if delta is None else round(delta[0] / s_x)
        self.sent = [0] * columns
        self.columns_read = self.units_read = 0

    @staticmethod
    def multiplier(factors: list[float]) -> tuple[list[int], int]:
        s = 14 - math.frexp(max(factors))[1] + 1
        if round(max(factors) * 2.0**s) > 32767:
            s -= 1
        mu = [max(1, round(f * 2.0**s)) for f in factors]
        return ([rsh(m, s - 62) for m in mu], 62) if s > 62 else (mu, s)

    def __call__(self, v: list[int]) -> list[int]:
        top = 1 << (self.bits - 1)
        x = [max(-top, min(top - 1, rsh(a * self.mu_x, self.s_x))) for a in v]
        if self.delta is None:
            acc = [
                b + sum(w * c for w, c in zip(row, x, strict=True))
                for b, row in zip(self.bias, self.A, strict=True)
            ]
        else:
            unit = self.block if self.delta[1] else 1
            for first in range(0, len(x), unit):
                columns = range(first, first + unit)
                moved = max(abs(x[k] - self.sent[k]) for k in columns)
                if moved == 0 or moved < self.theta:
                    continue
                for k in columns:
                    self.columns_read += 1
                    for r, row in enumerate(self.A):
                        self.M[r] += row[k] * (x[k] - self.sent[k])
                    self.sent[k] = x[k]
            acc = self.M
        return [sat(rsh(a * m, self.s)) for a, m in zip(acc, self.mu, strict=True)]


def lstm(wx: Product, wh: Product, xs: list[list[int]]) -> list[list[int]]:
    h, c, out = [0] * UNITS, [0] * UNITS, []
    for x in xs:
        a = [sat(p + q) for p, q in zip(wx(x), wh(h), strict=True)]
        new_c, new_h = [], []
        for j in range(UNITS):
            i, f = sigmoid(a[j]), sigmoid(a[UNITS + j])
            g, o = tanh(a[2 * UNITS + j]), sigmoid(a[3 * UNITS + j])
            new_c.append(sat(mul(f, c[j]) + mul(i, g)))
            new_h.append(mul(o, tanh(new_c[j])))
        h, c = new_h, new_c
        out.append(h)
    return out


def gru(wx: Product, wh: Product, xs: list[list[int]]) -> list[list[int]]:
    h, out = [0] * UNITS, []
    for x in xs:
        p, q = wx(x), wh(h)
        new = []
        for j in range(UNITS):
            r = sigmoid(sat(p[j] + q[j]))
            z = sigmoid(sat(p[UNITS + j] + q[UNITS + j]))
            n = tanh(sat(p[2 * UNITS + j] + mul(r, q[2 * UNITS + j])))
            new.append(sat(n + mul(z, sat(h[j] - n))))
        h = new
        out.append(h)
    return out


def recipe(
    bits: int, x_bits: int, block: int, theta: float | None, granularity: str, naive: bool
) -> Recipe:
    held = {"method": "delta", "threshold": theta, "granularity": granularity}
    rule = {
        "weights": "layer0.*",
        "structure": {"method": "circulant", "block": block} if block else "dense",
        "format": {"method": "uniform", "bits": bits, "scales": "gate"},
        "activation": {"bits": x_bits},
        "activity": "none" if theta is None else held,
    }
    made = recipe_from_json({"schema": "modelflex.recipe/1", "rules": [rule]})
    return made.naive if naive else made


CASES = [
    (bits, x_bits, block, theta, granularity, naive)
    for bits, x_bits in ((2, 2), (3, 8), (4, 4), (8, 8), (16, 16), (2, 16))
    for block, theta, granularity, naive in (
        (0, None, "element", False),
        (0, 0.0, "element", True),
        (4, None, "element", True),
        (4, 0.1, "block", False),
        (2, 0.3, "element", False),
    )
]


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_integers_bit_for_bit(kind: str, case: tuple[Any, ...]) -> None:
    rng = np.random.default_rng(CASES.index(case))
    model = random_model(rng, [kind], inputs=N_IN, units=UNITS, reads="every")
    model = Model("only", model.layers[:1], {n: w for n, w in model.weights.items() if "0." in n})
    data = random_sequences(rng, (40, 7), N_IN)
    # Large inputs now and then, so that codes and sums reach their ends.
    data.x[rng.integers(0, data.steps, 3)] *= 40
    small = compress(model, recipe(*case), calibrate(model, random_sequences(rng, (30,), N_IN)))
    found = run(build_program(small.model), data)
    theta, granularity = case[3], case[4]
    wanted, read = [], {"w_x": 0, "w_h": 0}
    start = 0
    for length in data.lengths:
        xs = [
            [sat(round(v * 65536)) for v in row] for row in data.x[start : start + length].tolist()
        ]
        start += length
        products = {
            w: Product(
                small.model.weights[f"layer0.{w}"],
                None if theta is None else (theta, granularity == "block"),
            )
            for w in read
        }
        wanted += {"lstm": lstm, "gru": gru}[kind](products["w_x"], products["w_h"], xs)
        for w, product in products.items():
            read[w] += product.columns_read if theta is not None else length * len(product.A[0])
    assert (found.outputs * 65536).tolist() == wanted
    assert {w: found.profile.sites[f"layer0.{w}/0"].active for w in read} == read


def reals(x: Any, w_x: Any, b_x: Any, w_h: Any, b_h: Any, kind: str) -> Any:
    h = c = np.zeros(UNITS)
    out = []
    for row in x:
        if kind == "lstm":
            i, f, g, o = np.split(w_x @ row + b_x + w_h @ h + b_h, 4)
            i, f, o = (1 / (1 + np.exp(-v)) for v in (i, f, o))
            c = f * c + i * np.tanh(g)
            h = o * np.tanh(c)
        else:
            xr, xz, xn = np.split(w_x @ row + b_x, 3)
            hr, hz, hn = np.split(w_h @ h + b_h, 3)
            r, z = 1 / (1 + np.exp(-xr - hr)), 1 / (1 + np.exp(-xz - hz))
            h = (1 - z) * np.tanh(xn + r * hn) + z * h
        out.append(h)
    return np.array(out)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_floats_to_rounding(kind: str) -> None:
    rng = np.random.default_rng(3)
    model = random_model(rng, [kind], inputs=N_IN, units=UNITS, reads="every")
    model = Model("only", model.layers[:1], {n: w for n, w in model.weights.items() if "0." in n})
    data = random_sequences(rng, (30, 9), N_IN)
    x, h = model.weights["layer0.w_x"], model.weights["layer0.w_h"]
    values = x.dense(), x.bias_value(), h.dense(), h.bias_value()
    wanted = [reals(part, *values, kind) for part in np.split(data.x.astype(float), [30])]
    found = run(build_program(model), data).outputs
    np.testing.assert_allclose(found, np.concatenate(wanted), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_floats_equal_torch(kind: str) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    model = random_model(rng, [kind, kind], inputs=N_IN, units=UNITS, reads="every")
    data = random_sequences(rng, (25,), N_IN)
    net = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[kind](N_IN, UNITS, 2)
    with torch.no_grad():
        for i in range(2):
            for ours, theirs in (("w_x", "ih"), ("w_h", "hh")):
                weight = model.weights[f"layer{i}.{ours}"]
                getattr(net, f"weight_{theirs}_l{i}").copy_(torch.from_numpy(weight.dense()))
                getattr(net, f"bias_{theirs}_l{i}").copy_(torch.from_numpy(weight.bias_value()))
        head = model.weights["head.w"]
        states = net(torch.from_numpy(data.x))[0].numpy()
    wanted = states @ head.dense().T + head.bias_value()
    found = run(build_program(model), data).outputs
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
