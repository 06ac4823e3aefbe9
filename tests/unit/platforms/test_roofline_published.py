"""Published times against the roofline: an upper bound on speed is never slower than a real run.

docs/roofline.md tells how far each lies from its bound; the ratios here guard that table.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from modelflex.core.products import ProductRow, make_table
from modelflex.platforms.roofline import Roofline


def lstm_step(spec: str, inputs: int, units: int, bits: int, gates: int = 4) -> float:
    """Seconds of a step's matrix products."""
    rows = [
        ProductRow(
            site=f"l.{name}/0", layout="dense", m=gates * units, k=k, block=1, weight_bits=bits,
            activation_bits=bits, macs=gates * units * k, stored_bytes=gates * units * k * bits / 8,
            units=k, unit_bytes=gates * units * bits / 8, fixed_bytes=0.0, reset_bytes=0.0,
            runs_per_step=1.0, dense_macs=gates * units * k,
        )
        for name, k in (("w_x", inputs), ("w_h", units))
    ]  # fmt: skip
    cost = Roofline.from_config({"spec": spec}).cost(make_table([rows], 1.0))
    assert cost.latency_per_step_s is not None
    return cost.latency_per_step_s


def test_xavier_lstm() -> None:
    """Kouris et al., arXiv 1905.00689: LSTM of 64 units, 8320 inputs with the state, float32, GPU."""
    published_s = 0.7974e-3
    bound_s = lstm_step("jetson_xavier", 8256, 64, 32)
    assert bound_s == pytest.approx(4 * 64 * 8320 * 4 / 137e9)
    assert published_s / bound_s == pytest.approx(12.8, abs=0.05)


def test_raspberry_pi_3_rnn() -> None:
    """Kusupati et al., FastGRNN, NeurIPS 2018: Google-12, 99 steps of 32 features, 100 units."""
    published_s = 15.7e-3
    bound_s = 99 * lstm_step("raspberry_pi_3b", 32, 100, 32, gates=1)
    assert published_s / bound_s == pytest.approx(115, abs=0.5)


@pytest.mark.parametrize(
    ("spec", "bits", "clock", "instructions", "per_cycle", "ratio"),
    [
        # CMSIS-NN, -O2; four gates interleaved with SMLAD, -O2; emx-onnx-cgen 1.4.0.
        ("cortex_m4", 8, 180e6, 228_500, 1, 5.4),
        ("cortex_m4", 8, 180e6, 136_900, 1, 3.2),
        ("cortex_m4", 32, 180e6, 273_000, 1, 1.7),
        # CMSIS-NN with MVE; the core starts at most two instructions a cycle.
        ("cortex_m55", 8, 400e6, 72_200, 2, 3.3),
    ],
)
def test_microcontrollers_need_at_least_their_instructions(
    spec: str, bits: int, clock: float, instructions: int, per_cycle: int, ratio: float
) -> None:
    """Instructions counted under QEMU for a step of an LSTM of 32 inputs and 128 units.

    A core cannot take fewer cycles than instructions over its issue width.
    """
    cycles = lstm_step(spec, 32, 128, bits) * clock
    assert instructions / per_cycle / cycles == pytest.approx(ratio, abs=0.05)


XEON = {
    "clock": (1, "GHz"), "mac_rate_float32": (98.5, "MAC/cycle"),
    "mac_rate_int16": (209.5, "MAC/cycle"), "mac_rate_int8": (419, "MAC/cycle"),
    "vector_rate": (98.5, "result/cycle"),
    "l1_capacity": (32, "KiB"), "l1_bandwidth": (265, "GB/s"),
    "l2_capacity": (2, "MiB"), "l2_bandwidth": (176, "GB/s"),
    "l3_capacity": (2.4, "MB"), "l3_bandwidth": (50, "GB/s"),
    "dram_capacity": (1, "GB"), "dram_bandwidth": (34, "GB/s"),
}  # fmt: skip
"""Rates measured on one core of a shared Xeon with AVX-512 and VNNI; the upper end of each."""

KERNELS_US = {
    # (inputs, units): float32, int8, both hand-written with intrinsics; least of many runs.
    (16, 32): (0.143, 0.092),
    (32, 128): (2.30, 0.80),
    (64, 256): (11.2, 2.67),
    (32, 1024): (795.0, 157.0),
    (153, 1024): (899.0, 176.0),
    (8256, 64): (350.0, 47.0),
}


@pytest.mark.parametrize(("size", "measured"), KERNELS_US.items(), ids=str)
def test_tuned_kernels_on_measured_rates(
    tmp_path: Path, size: tuple[int, int], measured: tuple[float, float]
) -> None:
    """With measured rates, kernels that stream their weights reach 60 to 90 % of the bound."""
    path = tmp_path / "xeon.toml"
    tables = [
        f'[{k}]\nvalue = {value}\nunit = "{unit}"\nsource = "measured"\n'
        for k, (value, unit) in XEON.items()
    ]
    header = 'name = "xeon"\nfamily = "roofline"\ntitle = "one core"\n'
    path.write_text(header + "".join(tables), encoding="utf-8")
    for bits, microseconds in zip((32, 8), measured, strict=True):
        share = lstm_step(str(path), *size, bits) * 1e6 / microseconds
        assert share < 1
        if max(size) >= 1024:
            assert share > 0.6
