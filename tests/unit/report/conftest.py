"""A study made by hand, with figures that are easy to recognise and names that try to break out."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest

from modelflex.core.cost import Cost
from modelflex.core.profile import Profile
from modelflex.core.quality import Quality
from modelflex.core.recipe import Recipe, rule_from_json
from modelflex.core.trial import Evaluation, Trial, Violation
from modelflex.search.study import Baseline, Limit, Step, Study

NASTY = "</script><b onclick=alert(1)>[bold]x & y</b><!--"
STEPS, SEQUENCES = 4200, 60


def recipe(bits: int, block: int, threshold: float, naive: bool) -> Recipe:
    structure = {"method": "circulant", "block": block} if block > 1 else {"method": "dense"}
    rule = {
        "weights": "*",
        "structure": structure,
        "format": {"method": "uniform", "bits": bits},
        "activation": {"bits": 8},
        "activity": {"method": "delta", "threshold": threshold} if threshold else "none",
    }
    label = f"b{block} {bits} bits θ {threshold:g}"
    made = Recipe((rule_from_json(rule),), recalibrate=1, label=label)
    return made.naive if naive else made


def accuracy(value: float, n: int) -> Quality:
    half = 1.96 * math.sqrt(value * (1 - value) / n)
    return Quality("accuracy", "max", value, (value - half, min(value + half, 1.0)), n)


def divergence(value: float) -> Quality:
    return Quality("kl", "min", value, (value * 0.8, value * 1.25), SEQUENCES)


def cost(fetch: float, weights: float) -> Cost:
    arithmetic, dram = 2e-9 * fetch / 1000, fetch * 8 * 8e-12
    latency = 1e-7 + fetch / 12.8e9
    energy = arithmetic + dram
    return Cost(
        latency_s=16 * latency,
        energy_j=16 * energy,
        latency_per_step_s=latency,
        energy_per_step_j=energy,
        throughput_steps_per_s=1 / latency,
        power_w=energy / latency,
        weight_bytes=weights,
        state_bytes=None,
        weight_fetch_bytes_per_step=fetch,
        dram_bytes_per_step=fetch,
        per_op={
            "lstm0.w_x": {"latency_s": latency * 0.2, "energy_j": energy * 0.1},
            "lstm0.w_h": {"latency_s": latency * 0.8, "energy_j": energy * 0.9},
        },
        energy_breakdown_j={"arithmetic": arithmetic, "dram": dram},
        bound="memory",
        coverage=1.0,
        residency="streamed",
    )


BASE_FETCH, BASE_BYTES = 288_804.0, 288_804.0
LIMITS = (
    Limit("divergence", "max", 0.05),
    Limit("metric_loss", "max", 0.02),
    Limit("throughput_steps_per_s", "min", 100.0),
    Limit("energy_per_step_j", "max", 2.5e-7),
)


def evaluation(
    bits: int, block: int, threshold: float, naive: bool, weight_bytes: float
) -> Evaluation:
    noise = 0.6 + 0.8 * ((bits * 7 + block * 13 + int(100 * threshold) * 5) % 11) / 11
    kl = 0.004 * noise * (4.5 / bits) ** 2 * block**0.6 * (1 + 12 * threshold**1.5)
    kl *= 9 * block**0.5 if naive else 1
    value = 0.9762 * math.exp(-0.22 * kl) - 0.00001 * block
    quality = {"divergence": divergence(kl), "metric": accuracy(value, SEQUENCES)}
    weights = {
        "lstm0.w_x": {"shape": [512, 12], "bytes": 700, "relative_error": 0.11, "density": 0.3},
        NASTY: {"shape": [512, 128], "bytes": 5000, "relative_error": 0.21, "density": None},
    }
    coverage = {"lstm0.w_x": "", NASTY: "no rule names it"}
    return Evaluation(
        quality, Profile(STEPS, SEQUENCES), int(weight_bytes), coverage, (), weights, 0.2
    )


def trial(number: int, bits: int, block: int, threshold: float, naive: bool) -> Trial:
    weights = BASE_BYTES * bits / 32 / block + 900
    kept = math.exp(-6.5 * threshold) * block**0.25 if threshold else 1.0
    made = cost(BASE_FETCH * bits / 32 / block * min(kept, 1.0) + 120, weights)
    run = evaluation(bits, block, threshold, naive, weights)
    violations = []
    kl, loss = run.quality["divergence"].value, 0.9762 - run.quality["metric"].value
    if kl > 0.05:
        violations.append(Violation("divergence", "max", 0.05, kl))
    if loss > 0.02:
        violations.append(Violation("metric_loss", "max", 0.02, loss))
    if (made.energy_per_step_j or 0) > 2.5e-7:
        violations.append(
            Violation("energy_per_step_j", "max", 2.5e-7, made.energy_per_step_j or 0)
        )
    status = "infeasible" if violations else "feasible"
    return Trial(
        number,
        recipe(bits, block, threshold, naive),
        status,
        made,
        evaluation=run,
        violations=tuple(violations),
    )


def make_study() -> Study:
    settings = list(itertools.product((2, 3, 4, 8), (1, 4, 8, 16), (0.0, 0.1, 0.2, 0.3, 0.4)))
    trials: list[Trial] = []
    for bits, block, threshold in settings:
        number = len(trials)
        trials.append(replace(trial(number, bits, block, threshold, False), twin=number + 1))
        role = "candidate" if number % 4 == 0 else "twin"
        trials.append(replace(trial(number + 1, bits, block, threshold, True), role=role))
    # One that is too dear to evaluate, and one whose name tries to break out of the page.
    rejected = trial(len(trials), 16, 1, 0.0, False)
    trials.append(
        replace(
            rejected,
            status="rejected",
            evaluation=None,
            violations=(Violation("energy_per_step_j", "max", 2.5e-7, 1e-5, optimistic=True),),
        )
    )
    trials[2] = replace(trials[2], recipe=replace(trials[2].recipe, label=NASTY))
    feasible = [t for t in trials if t.status == "feasible" and t.role == "candidate"]
    best = min(feasible, key=lambda t: t.cost.weight_fetch_bytes_per_step or 0)
    assert best.twin is not None
    steps = (
        Step("uncompressed", BASE_BYTES, BASE_FETCH, 2.2e-5, 1.9e-5, 0.0),
        Step(
            "structure: circulant, blocks of 4", BASE_BYTES / 4, BASE_FETCH / 4, 6e-6, 5e-6, 0.021
        ),
        Step("format: uniform, 2 bits, scale a gate", 6400.0, 6500.0, 1e-6, 4e-7, 0.043),
        Step("activity: delta, block threshold .4", 6400.0, 1300.0, 3e-7, 8.5e-8, 0.06),
        Step("closed-loop recalibration, 2 rounds", 6400.0, 1270.0, 3e-7, 8.4e-8, 0.029),
    )
    return Study(
        name=f"japanese_vowels {NASTY}",
        task="classification",
        baseline=Baseline({"metric": accuracy(0.9762, SEQUENCES)}, cost(BASE_FETCH, BASE_BYTES)),
        trials=tuple(trials),
        best=best,
        naive=trials[best.twin],
        test={
            "baseline": {"metric": accuracy(0.9730, 370)},
            "best": {"metric": accuracy(0.9703, 370), "divergence": divergence(0.0271)},
            "naive": {"metric": accuracy(0.6135, 370), "divergence": divergence(0.812)},
        },
        limits=LIMITS,
        objective="weight_fetch_bytes_per_step",
        pareto_slack=0.02,
        platform={
            "name": "systolic",
            "spec": "fusion units 32×32",
            "residency": "streamed",
            "clock": {"value": 2e8, "unit": "Hz", "source": "ModelFlex, table 2"},
            "memory": {
                "dram_energy": {
                    "value": 8e-12,
                    "unit": "J/bit",
                    "source": "LPDDR4 <vendor> data sheet",
                }
            },
        },
        analysis={
            "layers": [
                {
                    "name": "lstm0",
                    "kind": "lstm",
                    "inputs": 12,
                    "units": 128,
                    "parameters": 72_192,
                    "macs_per_step": 71_680,
                    "bytes": 288_768,
                },
                {
                    "name": NASTY,
                    "kind": "dense",
                    "inputs": 128,
                    "units": 9,
                    "parameters": 1161,
                    "macs_per_step": 1152,
                    "bytes": 4644,
                },
            ],
            "hidden_rank": {
                "lstm0": {
                    "units": 128,
                    "rank_90": 23,
                    "rank_99": 46,
                    "spectrum": [1 - math.exp(-(i + 1) / 10) for i in range(128)],
                }
            },
        },
        steps=steps,
        provenance={"modelflex": "0.1.0", "seed": 7, "data": {"sha256": "ab" * 32}},
        references={
            "uniform": "Frantar et al., GPTQ, ICLR 2023",
            "delta": "Neil et al., ICML 2017",
        },
        notes=(f"A note from outside: {NASTY}",),
    )


def make_without_best(study: Study) -> Study:
    """The same search under limits that nothing meets."""
    missed = (Violation("energy_per_step_j", "max", 1e-9, 8.5e-8),)
    trials = tuple(
        replace(t, status="infeasible" if t.evaluation else t.status, violations=missed)
        for t in study.trials
    )
    test = {"baseline": study.test["baseline"]}
    return replace(
        study,
        trials=trials,
        best=None,
        naive=None,
        test=test,
        steps=(),
        limits=(Limit("energy_per_step_j", "max", 1e-9),),
        nearest=((20, missed), (22, missed)),
    )


@pytest.fixture(scope="session")
def study() -> Study:
    return make_study()


@pytest.fixture(scope="session")
def without_best(study: Study) -> Study:
    return make_without_best(study)
