"""Fit your own torch network into a budget: train a small LSTM, search, report, load the result.

Run it with torch installed: python train_and_search.py
"""

import numpy as np
import torch

import modelflex

SHAPES = {
    "sine": np.sin,
    "square": lambda phase: np.sign(np.sin(phase)),
    "saw": lambda phase: (phase / np.pi) % 2 - 1,
    "noise": lambda phase: 0.7 * rng.standard_normal(phase.size),
}
rng = np.random.default_rng(0)
torch.manual_seed(0)
torch.set_num_threads(1)


def waves(count: int) -> list[tuple[np.ndarray, int]]:
    """Your data: recordings x [T, F] of any length, each with its class; here level and change."""
    found = []
    for _ in range(count):
        kind, time = int(rng.integers(4)), np.arange(rng.integers(16, 32))
        shape = list(SHAPES.values())[kind]
        wave = shape(rng.uniform(0.5, 0.9) * time + rng.uniform(0, 6))
        wave = rng.uniform(0.7, 1.3) * wave + 0.05 * rng.standard_normal(time.size)
        features = np.stack([wave[1:], np.diff(wave)], axis=1)
        found.append((features.astype(np.float32), kind))
    return found


def train(lstm: torch.nn.LSTM, linear: torch.nn.Linear, data: list, epochs: int = 15) -> None:
    """Your training: nothing in it knows about ModelFlex."""
    optimizer = torch.optim.Adam([*lstm.parameters(), *linear.parameters()], lr=0.02)
    x = [torch.from_numpy(x) for x, _ in data]
    y = torch.tensor([y for _, y in data])
    for _ in range(epochs):
        for batch in torch.randperm(len(data)).split(32):
            packed = torch.nn.utils.rnn.pack_sequence([x[i] for i in batch], enforce_sorted=False)
            loss = torch.nn.functional.cross_entropy(linear(lstm(packed)[1][0][-1]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


training, validation, test = waves(400), waves(100), waves(300)
lstm, linear = torch.nn.LSTM(2, 32), torch.nn.Linear(32, 4)
train(lstm, linear, training)

model = modelflex.load(lstm, head=linear)
study = modelflex.search(
    model,
    calibration=training[:50],
    validation=validation,
    test=test,
    task="classification",
    limits={"max": {"divergence": 0.02, "metric_loss": "1 points"}},
    platform={"name": "systolic"},
    out="runs/your_model",
)
if study.best is None:
    raise SystemExit("no recipe is within all limits")

summary = study.summary()
baseline, best = summary["baseline"], summary["best"]
print(f"recipe         {study.best.recipe.label}")
print(f"test accuracy  {baseline['test_accuracy']:.3f} → {best['test_accuracy']:.3f}")
print(
    f"weights        {baseline['cost']['weight_bytes']:.0f} → {best['cost']['weight_bytes']:.0f} B"
)
print(f"fetched a step {best['fetch_ratio']:.0f} times fewer bytes")
print(f"latency        {best['cost']['latency_per_step_s'] * 1e6:.2f} µs a step")
print("report        ", study.report("runs/your_model/report.html"))

# The artefact is the compressed network itself: load it anywhere and run the integers that ship.
compressed = modelflex.load("runs/your_model/best")
sequences = [x for x, _ in test]
outputs = modelflex.run(compressed, sequences)
print("first answers ", *(list(SHAPES)[i] for i in outputs[:6].argmax(axis=1)))
print("true          ", *(list(SHAPES)[y] for _, y in test[:6]))
assert np.array_equal(outputs, modelflex.run(study.model, sequences))
