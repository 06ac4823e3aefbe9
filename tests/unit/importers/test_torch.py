"""Networks of torch against torch's own forward pass, and those that are refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from modelflex.core.data import Sequences
from modelflex.core.model import Model
from modelflex.core.program import build_program
from modelflex.errors import UserError
from modelflex.execute.interpret import run
from modelflex.importers.models import load_model

torch: Any = pytest.importorskip("torch")
nn = torch.nn

FEATURES, UNITS, CLASSES = 5, 7, 3
LENGTHS = (4, 9, 1)


def sequences() -> Sequences:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((sum(LENGTHS), FEATURES)).astype(np.float32)
    return Sequences(x, np.array(LENGTHS))


def torch_outputs(recurrent: Any, head: Any, reads: str) -> Any:
    """What torch itself computes, one sequence at a time."""
    outputs = []
    with torch.no_grad():
        for x in torch.from_numpy(sequences().x).split(list(LENGTHS)):
            h = recurrent(x[:, None])[0][:, 0]
            h = h if head is None else head(h)
            outputs.append(h if reads == "every" else h[-1:])
    return torch.cat(outputs).numpy()


def outputs(model: Model) -> Any:
    return run(build_program(model), sequences()).outputs


@pytest.mark.parametrize("reads", ["last", "every"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_live_modules_and_files_compute_what_torch_computes(
    kind: str, layers: int, bias: bool, reads: str, tmp_path: Path
) -> None:
    torch.manual_seed(layers)
    recurrent = getattr(nn, kind)(FEATURES, UNITS, layers, bias=bias)
    head = nn.Linear(UNITS, CLASSES, bias=bias)
    expected = torch_outputs(recurrent, head, reads)
    state = {f"body.rnn.{n}": t for n, t in recurrent.state_dict().items()}
    state |= {f"out.{n}": t for n, t in head.state_dict().items()}
    torch.save(state, tmp_path / "net.pt")
    arrays = {n: t.numpy() for n, t in state.items()}
    safetensors.numpy.save_file(arrays, tmp_path / "net.safetensors")
    for model in (
        load_model(recurrent, head=head, reads=reads),
        load_model(
            nn.ModuleDict({"rnn": recurrent, "drop": nn.Dropout(), "out": head}), reads=reads
        ),
        load_model(tmp_path / "net.pt", reads=reads),
        load_model(str(tmp_path / "net.safetensors"), reads=reads),
    ):
        assert model.per_step == (reads == "every")
        np.testing.assert_allclose(outputs(model), expected, atol=1e-5)


def test_names_and_biases_of_layers() -> None:
    lstm = load_model(nn.LSTM(FEATURES, UNITS, 2), head=nn.Linear(UNITS, CLASSES))
    assert [layer.name for layer in lstm.layers] == ["lstm0", "lstm1", "head"]
    assert lstm.weights["lstm1.w_h"].bias is None  # merged into w_x
    gru = load_model(nn.GRU(FEATURES, UNITS), head=nn.Linear(UNITS, CLASSES), name="mine")
    assert gru.weights["gru0.w_h"].bias is not None  # the reset gate scales it
    assert (gru.name, lstm.name) == ("mine", "lstm")


def test_no_head_and_double_precision() -> None:
    gru = nn.GRU(FEATURES, UNITS).double()
    expected = torch_outputs(nn.GRU(FEATURES, UNITS).requires_grad_(False), None, "every").shape
    assert outputs(load_model(gru, reads="every")).shape == expected
    assert load_model(gru).per_step
    with pytest.raises(UserError, match="no head that could read the last step"):
        load_model(gru, reads="last")


def state(**changes: Any) -> dict[str, Any]:
    """A sound LSTM state dict with some tensors replaced (None: removed)."""
    torch.manual_seed(0)
    tensors = {n: t.numpy() for n, t in nn.LSTM(FEATURES, UNITS).state_dict().items()}
    tensors |= {"out.weight": np.ones((CLASSES, UNITS), np.float32)}
    tensors |= changes
    return {n: t for n, t in tensors.items() if t is not None}


def one(*shape: int) -> Any:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda: nn.LSTM(FEATURES, UNITS, bidirectional=True), "bidirectional"),
        (lambda: nn.LSTM(FEATURES, UNITS, proj_size=2), "projected"),
        (lambda: nn.ModuleDict({"rnn": nn.RNN(FEATURES, UNITS)}), "module 'rnn' is a RNN"),
        (lambda: nn.ModuleList([nn.GRU(5, 7), nn.GRU(7, 7)]), "several recurrent modules: 0., 1."),
        (lambda: nn.ModuleList([nn.GRU(5, 7), nn.LayerNorm(7)]), "module '1' is a LayerNorm"),
        (lambda: nn.ModuleList([nn.GRU(5, 7), nn.ReLU(), nn.Linear(7, 2)]), "module '1' is a ReLU"),
        (lambda: nn.ModuleList([nn.GRU(5, 7), nn.Linear(7, 2), nn.Linear(2, 2)]), "at most one"),
        (lambda: nn.ModuleList([nn.GRU(5, 7), nn.Linear(6, 2)]), "6 inputs; expected 7"),
        (lambda: nn.Linear(3, 3), "no tensor 'weight_hh_l0'"),
        (lambda: nn.GRU(5, 7, device="meta"), "meta device"),
        (lambda: object(), "the model is a object"),
    ],
)
def test_modules_that_are_refused(source: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_model(source(), reads="every")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight_hh_l0": one(UNITS, UNITS)}, r"\(a plain RNN\)"),
        ({"weight_hh_l0": one(30, UNITS)}, "4 × hidden rows"),
        ({"weight_hh_l0": one(4)}, r"shape \(4,\)"),
        ({"weight_hh_l0": None}, "no tensor 'weight_hh_l0' among bias_hh_l0, bias_ih_l0"),
        ({"weight_ih_l0": None}, "'weight_ih_l0' is missing"),
        ({"weight_ih_l0": one(24, FEATURES)}, r"expected \(24,\), one a row"),
        ({"weight_ih_l0": one(28)}, r"'weight_ih_l0' has the shape \(28,\)"),
        ({"bias_ih_l0": None}, "has one bias"),
        ({"bias_ih_l0": one(27)}, "shapes"),
        ({"bias_ih_l0": one(27), "bias_hh_l0": one(27)}, r"shape \(27,\)"),
        ({"bias_hh_l0": one(28) * np.nan}, "'bias_hh_l0' holds 28 NaN"),
        ({"weight_ih_l0": one(28, 5) * np.inf}, "'weight_ih_l0' holds 0 NaN and 140 infinite"),
        ({"weight_ih_l2": one(28, 7)}, "'weight_ih_l1' is missing"),
        ({"weight_hr_l0": one(2, 7)}, "projected"),
        ({"weight_ih_l0_reverse": one(28, 5)}, "bidirectional"),
        ({"norm.running_mean": one(3)}, "norm.running_mean"),
        ({"out.weight": np.ones((3, 7), np.int32)}, "of type int32"),
    ],
)
def test_state_dicts_that_are_refused(tmp_path: Path, changes: Any, message: str) -> None:
    path = tmp_path / "net.safetensors"
    safetensors.numpy.save_file(state(**changes), path)
    with pytest.raises(UserError, match=message):
        load_model(path)


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path(self.target),))

    def __init__(self, target: str) -> None:
        self.target = target


def test_pickles_are_never_executed(tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    torch.save({"weight_hh_l0": Evil(str(trace))}, tmp_path / "evil.pt")
    with pytest.raises(UserError, match="can't be read as a state dict") as caught:
        load_model(tmp_path / "evil.pt")
    assert not trace.exists()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"net": nn.GRU(5, 7).state_dict(), "epoch": 3}, "other things than tensors"),
        ([1, 2], "holds a list"),
        ({"weight_hh_l0": torch.ones(2, dtype=torch.int64)}, "torch.int64"),
    ],
)
def test_checkpoints_that_are_no_state_dict(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "net.pth")
    with pytest.raises(UserError, match=message):
        load_model(tmp_path / "net.pth")


def test_a_checkpoint_that_repeats_a_number_is_refused(tmp_path: Path) -> None:
    """A single stored number that stands for 4·10¹⁰ of them."""
    state = {"weight_hh_l0": torch.zeros(1).expand(400_000, 100_000)}
    torch.save(state, tmp_path / "net.pt")
    assert (tmp_path / "net.pt").stat().st_size < 10_000
    with pytest.raises(UserError, match="mean 40000000000 numbers; expected at most"):
        load_model(tmp_path / "net.pt")


def test_a_truncated_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.save(nn.GRU(5, 7).state_dict(), path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match="can't be read as a state dict"):
        load_model(path)


def test_without_torch_the_message_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.pt").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"pip install 'modelflex\[torch\]'"):
        load_model(tmp_path / "net.pt")
