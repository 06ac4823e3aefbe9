"""The platform of this machine: its model against loops by hand, its counters, what is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelflex.compress import compress
from modelflex.core.fixed import Array
from modelflex.core.products import make_table, program_table, single_recipe
from modelflex.core.program import build_program
from modelflex.core.recipe import recipe_from_json
from modelflex.errors import UserError
from modelflex.execute.kernels import HAVE_NATIVE
from modelflex.execute.native import Runtime
from modelflex.platforms.cpu import Cpu, calibration, energy, machine
from modelflex.platforms.cpu import platform as platform_module
from modelflex.platforms.cpu.constants import (
    PACKED_BITS,
    Constants,
    LayerTime,
    ProductTime,
    product_kinds,
)
from modelflex.search.problem import run_network
from modelflex.testing.recipes import cached_case, executed

native = pytest.mark.skipif(not HAVE_NATIVE, reason="built without a C compiler")


def constants() -> Constants:
    """Constants that differ everywhere."""
    kinds = enumerate(PACKED_BITS, 1)
    products = {
        kind: ProductTime(n * 1e-8, n * 1e-9, n * 3e-9, n * 1e-11, n * 0.6e-11) for n, kind in kinds
    }
    layers = {"float": LayerTime(5e-8, 2e-9, 3e-9), "integer": LayerTime(4e-8, 1e-9, 7e-9)}
    read = ((1 << 10, 4e10), (1 << 12, 1e10), (1 << 20, 1e9))
    here = {"cpu": "a processor", "caches_bytes": {"L1": 1 << 11, "L2": 1 << 15}}
    return Constants(here, 2e-7, products, layers, read)


# --- the model ---------------------------------------------------------------------------------------
@given(
    st.lists(st.floats(1e-10, 1e-6), min_size=4, max_size=4),
    st.integers(0, 15),
    st.integers(0, 2**32 - 1),
)
def test_a_fit_finds_factors_of_which_some_are_zero(
    factors: list[float], gone: int, seed: int
) -> None:
    truth = np.array([0.0 if gone >> i & 1 else f for i, f in enumerate(factors)])
    if not truth.any():
        truth[0] = 1e-8
    features = np.random.default_rng(seed).uniform(1, 1000, (12, 4))
    found = calibration.fit_seconds(features, features @ truth)
    np.testing.assert_allclose(features @ found, features @ truth, rtol=1e-6)
    assert np.all(found >= 0)


def test_a_fit_has_no_negative_factors_and_is_the_best_without() -> None:
    rng = np.random.default_rng(1)
    features = rng.uniform(0, 1, (20, 3))
    seconds = features @ [1.0, -0.3, 0.5] + 1
    found = calibration.fit_seconds(features, seconds)
    assert found.min() >= 0

    def error(factors: Array) -> float:
        return float(np.sum((features @ factors / seconds - 1) ** 2))

    for _ in range(2000):  # no other point without negative factors is better
        other = np.maximum(found + rng.normal(0, 0.1, 3), 0)
        assert error(found) <= error(other) + 1e-12


def by_hand(table: Any, of: Constants) -> float:
    """Seconds of a step, row by row, at the two rates around the recipe's bytes."""
    kinds = product_kinds(table)
    rows = [{name: column[i] for name, column in table.columns.items()} for i in range(table.rows)]
    held = sum(r["m"] * r["k"] * PACKED_BITS[k] / 8 for r, k in zip(rows, kinds, strict=True) if k)

    def step_s(rate: float) -> float:
        total = of.call_s
        for row, kind in zip(rows, kinds, strict=True):
            if not kind:
                layer = of.layers["integer"]
                if row["m"]:
                    total += layer.run_s + row["m"] * layer.result_s
                    total += row["functions"] * layer.function_s
                continue
            p, share = of.products[kind], row["active"] if "delta" in kind else 1.0
            elements, times = row["m"] * row["k"], row["positions"]
            total += p.run_s + times * (row["k"] * p.input_s + row["m"] * p.result_s)
            work = times * elements * min(share * p.mac_s, p.most_s)
            total += max(work, elements * PACKED_BITS[kind] / 8 * share / rate)
        return float(total)

    (small, _), *_, (large, _) = of.read
    held = min(max(held, small), large)
    for (a, fast), (b, slow) in zip(of.read, of.read[1:], strict=False):
        if a <= held <= b:
            share = np.log(held / a) / np.log(b / a)
            return float((1 - share) * step_s(fast) + share * step_s(slow))
    raise AssertionError("no such size")


@pytest.mark.parametrize("seed", range(8))
def test_a_step_takes_what_a_loop_over_its_rows_says(seed: int) -> None:
    case, ran = cached_case(seed), executed(seed)
    table = program_table(case.program, ran.profile, case.model)
    cost = Cpu(constants()).cost(table)
    assert cost.latency_per_step_s is not None
    assert cost.latency_s == pytest.approx(table.steps * cost.latency_per_step_s)
    assert cost.latency_per_step_s == pytest.approx(by_hand(table, constants()), rel=1e-9)
    parts = sum(part["latency_s"] for part in cost.per_op.values())
    assert parts == pytest.approx(cost.latency_per_step_s, rel=1e-9)
    assert cost.energy_j is None
    assert cost.energy_per_step_j is None


@pytest.mark.parametrize("kind", ["8", "4", "2", "delta_8"])
def test_products_of_recipes_are_of_their_kind(kind: str) -> None:
    case = cached_case(3)
    bits = 4 if kind == "delta_8" else int(kind)
    rule: dict[str, Any] = {"weights": "*", "format": {"method": "uniform", "bits": bits}}
    if kind == "delta_8":
        rule["activity"] = {"method": "delta", "threshold": 0.1}
    recipe = recipe_from_json({"schema": "modelflex.recipe/1", "label": "", "rules": [rule]})
    made = compress(case.model, recipe, case.stats).model
    _, profile = run_network(made, case.data)
    table = program_table(build_program(made), profile, case.model)
    assert set(product_kinds(table)) == {kind, ""}
    _, profile = run_network(case.model, case.data)
    floats = program_table(build_program(case.model), profile, case.model)
    assert set(product_kinds(floats)) == {"float32", ""}


def test_a_table_of_nothing_but_calls() -> None:
    case, ran = cached_case(0), executed(0)
    table = program_table(case.program, ran.profile, case.model)
    empty = make_table([[]], table.steps)
    platform = Cpu(constants())
    totals = platform.combine(empty, platform.price(empty), single_recipe(empty))
    assert totals["latency_per_step_s"][0] == constants().call_s


# --- what is kept ------------------------------------------------------------------------------------
def test_constants_survive_json() -> None:
    of = constants()
    assert Constants.from_json(json.loads(json.dumps(of.to_json()))) == of


def test_known_constants_are_used_as_they_are_and_others_refused() -> None:
    def never(_: Any) -> Any:
        raise AssertionError("measured")

    platform = Cpu().calibrated(never, constants().to_json())
    assert Constants.from_json(platform.constants) == constants()
    with pytest.raises(UserError, match="constants of the platform"):
        Cpu().calibrated(never, {"call_s": 1.0})
    with pytest.raises(UserError, match="unknown key 'spec'"):
        Cpu.from_config({"spec": "x"})


@native
def test_constants_are_measured_once_for_a_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def measured(*_: Any) -> Constants:
        calls.append(1)
        return constants()

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(platform_module, "calibrate", measured)
    for _ in range(2):
        assert Constants.from_json(Cpu().calibrated(Runtime).constants) == constants()
    assert len(calls) == 1
    (file,) = tmp_path.rglob("cpu-*.json")
    file.write_text("{")  # cut short
    Cpu().calibrated(Runtime)
    assert len(calls) == 2
    monkeypatch.setattr(machine, "cpu_name", lambda: "another")
    Cpu().calibrated(Runtime)
    assert len(calls) == 3


@native
def test_calibration_finds_the_constants_that_times_were_made_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Times are given instead of measured: `seconds` of the model, and the call."""
    call_s, product = 3e-7, ProductTime(5e-8, 2e-9, 1e-9, 2e-11, 1.2e-11)

    class Told:
        def __init__(self, stream: Any, inputs: Any) -> None:
            self.plan, self.inputs = stream.plan, inputs

    def told(steppers: list[Told], rounds: int) -> Array:
        found = []
        for stepper in steppers:
            total = call_s
            changed = float(np.mean(stepper.inputs[0] != stepper.inputs[1]))
            for site in stepper.plan.products.values():
                m, k = site.geometry.out, site.geometry.inputs
                held = site.link is not None and site.link.activity is not None
                share = changed if held else 1.0
                total += product.run_s + k * product.input_s + m * product.result_s
                total += m * k * min(share * product.mac_s, product.most_s)
            found.append(total)
        return np.array(found)

    monkeypatch.setattr(calibration, "Stepper", Told)
    monkeypatch.setattr(calibration, "in_turns", told)
    monkeypatch.setattr(calibration, "read_bytes_per_s", lambda size: 1e9)
    found = calibration.calibrate(Runtime, {})
    tiny = product.seconds(*calibration.TINY)
    assert found.call_s == pytest.approx(call_s + tiny)
    for kind, of in found.products.items():
        assert of.seconds(300, 200) == pytest.approx(product.seconds(300, 200) - tiny, rel=0.02), (
            kind
        )
        if kind.startswith("delta"):
            assert of.mac_s == pytest.approx(product.mac_s, rel=0.1), kind
            assert of.most_s == pytest.approx(product.most_s, rel=0.1), kind


# --- the machine -------------------------------------------------------------------------------------
def rapl(folder: Path, name: str, microjoules: int, label: str = "package-0") -> Path:
    domain = folder / name
    domain.mkdir()
    (domain / "name").write_text(f"{label}\n")
    (domain / "energy_uj").write_text(f"{microjoules}\n")
    (domain / "max_energy_range_uj").write_text("999\n")
    return domain / "energy_uj"


def test_energy_is_that_of_packages_and_counters_may_wrap(tmp_path: Path) -> None:
    one, two = rapl(tmp_path, "intel-rapl:0", 990), rapl(tmp_path, "intel-rapl:1", 5)
    rapl(tmp_path, "intel-rapl:0:0", 0, "core")
    rapl(tmp_path, "intel-rapl:2", 0, "psys")
    packages = energy.counters(tmp_path)
    assert [c.file for c in packages] == [one, two]
    before = energy.read_uj(packages)
    one.write_text("10")  # 990 … 999, 0 … 10: 20 microjoules
    two.write_text("12")
    used = energy.joules_between(packages, before, energy.read_uj(packages))
    assert used == pytest.approx(27e-6)


def test_counters_that_cannot_be_read_are_none(tmp_path: Path) -> None:
    file = rapl(tmp_path, "intel-rapl:0", 1)
    file.unlink()
    file.mkdir()  # opening it fails, as for a user without the right
    assert energy.counters(tmp_path) == ()
    assert energy.counters(tmp_path / "none") == ()


def test_cache_sizes_are_those_of_data(tmp_path: Path) -> None:
    kinds = (("1", "Data", "32K"), ("1", "Instruction", "64K"), ("2", "Unified", "2M"))
    for n, (level, kind, size) in enumerate(kinds):
        (tmp_path / f"index{n}").mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (tmp_path / f"index{n}" / name).write_text(text + "\n")
    assert machine.cache_sizes(tmp_path) == {"L1": 32 << 10, "L2": 2 << 20}
    assert machine.cache_sizes(tmp_path / "none") == {}


def test_a_processor_without_a_name_has_its_architecture(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Some CPU 3000\n")
    assert machine.cpu_name(info) == "Some CPU 3000"
    assert machine.cpu_name(tmp_path / "none")


# --- measured ----------------------------------------------------------------------------------------
@native
def test_what_is_measured_belongs_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """No figure is compared with a clock: only with each other and with what is counted."""
    timing = calibration.Stepper.__module__
    monkeypatch.setattr(f"{timing}.MOST_STEPS", 200)
    monkeypatch.setattr(f"{timing}.COLD_STEPS", 3)
    case, ran = cached_case(2), executed(2)
    table = program_table(case.program, ran.profile, case.model)
    stream = Runtime(case.program)
    inputs = np.ascontiguousarray(case.data.x[:32], np.float32)
    cost = Cpu(constants()).measure(stream, inputs, table)
    assert cost.weight_bytes == case.made.model.weight_bytes
    assert cost.latency_per_step_s is not None
    assert 0 < cost.latency_per_step_s <= cost.resources["latency_p99_s"]
    assert cost.resources["cold_latency_s"] <= cost.resources["cold_latency_p99_s"]
    assert cost.latency_s == pytest.approx(table.steps * cost.latency_per_step_s)
    assert cost.resources["ram_bytes"] == stream.plan.ram_bytes
    assert cost.resources["flash_bytes"] == stream.plan.flash_bytes
    fetched = cost.weight_fetch_bytes_per_step
    assert fetched is not None
    roof_s = fetched / cost.resources["read_bytes_per_s"]
    assert cost.resources["roofline_share"] == pytest.approx(roof_s / cost.latency_per_step_s)
    assert cost.bound == ("memory" if cost.resources["roofline_share"] >= 0.5 else "compute")
    if not energy.counters():
        assert cost.energy_j is None
        assert cost.power_w is None
