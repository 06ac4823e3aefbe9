"""Judge by your own quality: an event detector with an answer at every step, limited by its F1.

Run it with torch installed: python own_quality.py
"""

import numpy as np
import torch

import modelflex

rng = np.random.default_rng(0)
torch.manual_seed(0)
torch.set_num_threads(1)

SPACE = [  # left out, the default space is searched
    {
        "name": "quantisation",
        "vary": {"bits": [2, 3, 4, 6, 8], "scales": ["gate", "row"]},
        "recalibrate": 2,
        "rules": [
            {
                "weights": "*",
                "format": {"method": "uniform", "bits": "$bits", "scales": "$scales"},
            }
        ],
    }
]


def recordings(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Noise with steps of raised level, as (x [T, 1], y [T]): 1 where the level is raised."""
    data = []
    for _ in range(count):
        y = np.zeros(int(rng.integers(20, 40)), np.int64)
        start = int(rng.integers(3, 12))
        y[start : start + int(rng.integers(4, 16))] = 1
        x = 0.8 * y + 0.4 * rng.standard_normal(y.size)
        data.append((x[:, None].astype(np.float32), y))
    return data


def train(gru: torch.nn.GRU, linear: torch.nn.Linear, data: list, epochs: int = 12) -> None:
    optimizer = torch.optim.Adam([*gru.parameters(), *linear.parameters()], lr=0.01)
    for _ in range(epochs):
        for batch in torch.randperm(len(data)).split(20):
            x, y = zip(*(map(torch.from_numpy, data[i]) for i in batch), strict=True)
            pack = torch.nn.utils.rnn.pack_sequence
            hidden, targets = gru(pack(x, enforce_sorted=False))[0], pack(y, enforce_sorted=False)
            loss = torch.nn.functional.cross_entropy(linear(hidden.data), targets.data)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


training, validation = recordings(200), recordings(60)
gru, linear = torch.nn.GRU(1, 16), torch.nn.Linear(16, 2)
train(gru, linear, training)

study = modelflex.search(
    modelflex.load(gru, head=linear, reads="every"),
    calibration=training[:60],
    validation=validation,
    task="per_step",
    quality="quality:event_f1",
    limits={"max": {"metric_loss": "1 points", "energy_per_step_j": "1 uJ"}},
    objective={"minimize": "weight_bytes"},
    space=SPACE,
    out="runs/own_quality",
)
if study.best is None:
    raise SystemExit("no recipe is within all limits")
summary = study.summary()
for name in ("baseline", "best"):
    found = summary[name]
    f1, size = found["quality"]["metric"]["value"], found["cost"]["weight_bytes"]
    print(f"{name:8} F1 {f1:.3f}, weights {size:.0f} B")
print("recipe  ", study.best.recipe.label)
print("note    ", *study.study.notes)
