"""Gradients against finite differences, automatic differentiation and the divergence they predict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from modelflex.calibrate import calibrate
from modelflex.core.data import Sequences
from modelflex.core.divergence import divergences, log_softmax
from modelflex.core.fixed import Array
from modelflex.core.graph import Op
from modelflex.core.model import Model
from modelflex.core.program import Program, build_program
from modelflex.core.weight import float_weight
from modelflex.errors import UserError
from modelflex.execute.gradients import backpropagate, importances, information
from modelflex.execute.interpret import run
from modelflex.registry import CELLS
from modelflex.testing.generators import random_case, random_model, random_sequences

LENGTHS = (7, 1, 4, 7)


def network(
    cells: tuple[str, ...], reads: str = "last", seed: int = 0
) -> tuple[Model, Sequences, np.random.Generator]:
    rng = np.random.default_rng(seed)
    model = random_model(rng, cells, inputs=3, units=5, outputs=4, reads=reads)
    return model, random_sequences(rng, LENGTHS, 3), rng


def bias_gradients(model: Model, data: Sequences, cotangent: Array) -> dict[str, Array]:
    """The gradient of Σ cotangent⊙outputs in what is added to every result at all steps."""
    found: dict[str, Array] = {}

    def add(site: str, gradient: Array, _: Array) -> None:
        name = site.rsplit("/", 1)[0]
        found[name] = found.get(name, 0.0) + gradient.sum(axis=0, dtype=np.float64)

    backpropagate(build_program(model), data, lambda _: cotangent, add)
    return found


def shifted(model: Model, name: str, row: int, step: float) -> Model:
    weight = model.weights[name]
    bias = weight.bias_value().copy()
    bias[row] += step
    return model.with_weights({name: float_weight(weight.dense(), bias, weight.gates)})


@pytest.mark.parametrize("reads", ["last", "every"])
@pytest.mark.parametrize("cells", [*((c,) for c in CELLS.names()), ("lstm", "gru")])
def test_equal_finite_differences(cells: tuple[str, ...], reads: str) -> None:
    """A bias acts at every step, so its derivative is the sum of the results' gradients."""
    model, data, rng = network(cells, reads)
    rows = len(LENGTHS) if reads == "last" else sum(LENGTHS)
    cotangent = rng.normal(size=(rows, model.outputs))
    found = bias_gradients(model, data, cotangent)
    step = 2.0**-8

    def objective(changed: Model) -> float:
        return float(np.sum(run(build_program(changed), data).outputs * cotangent))

    assert found.keys() == model.weights.keys()
    for name, gradient in found.items():
        for row in range(0, gradient.size, 3):
            high, low = (objective(shifted(model, name, row, s)) for s in (step, -step))
            assert gradient[row] == pytest.approx((high - low) / (2 * step), rel=5e-3, abs=5e-3)


def test_equal_torch_autograd() -> None:
    torch = pytest.importorskip("torch")
    model, data, rng = network(("lstm", "lstm"), "every")
    cotangent = rng.normal(size=(sum(LENGTHS), model.outputs))
    params = {
        name: torch.tensor(value, dtype=torch.float64, requires_grad=True)
        for n, w in model.weights.items()
        for name, value in ((n, w.dense()), (f"{n}.bias", w.bias_value()))
    }
    total, start = torch.zeros(()), 0
    for length in LENGTHS:
        values = [torch.tensor(v, dtype=torch.float64) for v in data.x[start : start + length]]
        for layer in ("layer0", "layer1"):
            h = c = torch.zeros(5, dtype=torch.float64)
            for t, x in enumerate(values):
                a = params[f"{layer}.w_x"] @ x + params[f"{layer}.w_x.bias"]
                a = a + params[f"{layer}.w_h"] @ h + params[f"{layer}.w_h.bias"]
                i, f, g, o = a.chunk(4)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
                values[t] = h
        for t, h in enumerate(values):
            y = params["head.w"] @ h + params["head.w.bias"]
            total = total + (torch.tensor(cotangent[start + t]) * y).sum()
        start += length
    total.backward()
    for name, gradient in bias_gradients(model, data, cotangent).items():
        wanted = params[f"{name}.bias"].grad.numpy()
        np.testing.assert_allclose(gradient, wanted, rtol=2e-4, atol=2e-4)


def test_labels_are_drawn_from_the_networks_own_softmax() -> None:
    """The head's results are the logits: E[(onehot − p)²] = p·(1 − p), the softmax's own Fisher diagonal."""
    model, _, rng = network(("gru",), "every")
    data = random_sequences(rng, (2000,) * 5, 3)
    program = build_program(model)
    p = np.exp(log_softmax(run(program, data).outputs))
    found = importances(program, data, "logits", 0)["head.w/0"]
    np.testing.assert_allclose(found, (p * (1 - p)).mean(axis=0), rtol=0.05)
    again = importances(program, data, "logits", 0)["head.w/0"]
    np.testing.assert_array_equal(found, again)


def test_outputs_that_are_no_logits_have_no_importance_of_their_own() -> None:
    """The same as of the network without them."""
    model, _, rng = network(("gru",), "every")
    data = random_sequences(rng, (50,) * 5, 3)
    found = importances(build_program(model), data, "logits:2", 0)
    head = model.weights["head.w"]
    alone = replace(
        model,
        layers=(model.layers[0], replace(model.layers[1], units=2)),
        weights={
            **model.weights,
            "head.w": float_weight(head.dense()[:2], head.bias_value()[:2], 1),
        },
    )
    wanted = importances(build_program(alone), data, "logits", 0)
    np.testing.assert_array_equal(found["head.w/0"][2:], 0.0)
    np.testing.assert_allclose(found["head.w/0"][:2], wanted.pop("head.w/0"), rtol=1e-5)
    for site, values in wanted.items():
        np.testing.assert_allclose(found[site], values, rtol=1e-4)


def test_importance_of_values_is_that_of_the_relative_error() -> None:
    model, _, rng = network(("gru",), "every")
    data = random_sequences(rng, (2000,) * 5, 3)
    program = build_program(model)
    power = np.square(run(program, data).outputs).sum(axis=1).mean()
    found = importances(program, data, "values", 0)["head.w/0"]
    np.testing.assert_allclose(found, 2 / power, rtol=0.05)


@pytest.mark.parametrize("output", ["logits", "values"])
@pytest.mark.parametrize("cells", [("lstm",), ("gru", "lstm")])
def test_predicts_the_divergence_of_small_errors(cells: tuple[str, ...], output: str) -> None:
    """½·Σ importance·E[δ²] against the divergence of random changes of a bias, on one step, where an
    error cannot correlate with itself over time.
    """
    model, _, rng = network(cells, "last", 3)
    model = replace(model, output=output)
    data = random_sequences(rng, (1,) * 3000, 3)
    original = run(build_program(model), data).outputs
    found = importances(build_program(model), data, output, 1)
    for name in ("layer0.w_x", "head.w"):
        size = 0.03
        predicted = 0.5 * size**2 * found[f"{name}/0"].sum()
        measured = []
        for _ in range(24):
            weight = model.weights[name]
            bias = weight.bias_value() + size * rng.choice((-1.0, 1.0), weight.shape[0])
            changed = model.with_weights({name: float_weight(weight.dense(), bias, weight.gates)})
            outputs = run(build_program(changed), data).outputs
            measured.append(divergences(output, original, outputs).mean())
        assert np.mean(measured) == pytest.approx(predicted, rel=0.3)


def test_calibration_keeps_them() -> None:
    model, data, _ = network(("lstm",))
    stats = calibrate(model, data)
    found = importances(build_program(model), data, "logits", 0)
    for name, site in stats.sites.items():
        np.testing.assert_array_equal(site.importance, found[f"{name}/0"])
        assert site.importance.shape == (model.weights[name].shape[0],)


def test_unknown_primitives_and_integers_are_refused() -> None:
    case = random_case(0)
    with pytest.raises(ValueError, match="float programs only"):
        importances(case.program, case.data, "logits", 0)
    program = build_program(case.model)
    first = program.stages[0]
    ops = (*first.graph.ops[:-1], _renamed(first.graph.ops[-1]))
    changed = replace(first, graph=replace(first.graph, ops=ops))
    broken = Program((changed, *program.stages[1:]), program.products, "float")
    with pytest.raises(ValueError, match="primitive 'cosine'"):
        importances(broken, case.data, "logits", 0)


def _renamed(op: Op) -> Op:
    return replace(op, kind="cosine")


def test_a_network_without_steps_of_variation_is_refused_by_calibration() -> None:
    model, data, _ = network(("lstm",))
    with pytest.raises(UserError, match="zero at every calibration step"):
        calibrate(model, replace(data, x=np.zeros_like(data.x)))


def test_importances_are_the_diagonal_of_the_information() -> None:
    rng = np.random.default_rng(11)
    program = build_program(random_model(rng, ["lstm", "gru"], reads="every"))
    data = random_sequences(rng, (9, 14), 8)
    wanted = importances(program, data, "logits", 5)
    found = information(program, data, "logits", 5, list(wanted))
    for site, diagonal in wanted.items():
        np.testing.assert_allclose(np.diag(found[site]), diagonal, rtol=1e-5)
        assert np.linalg.eigvalsh(found[site]).min() > -1e-6 * diagonal.max()
