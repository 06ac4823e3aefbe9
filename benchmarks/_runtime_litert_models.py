"""Makes LiteRT models of a recurrent layer.

    python _runtime_litert_models.py CELL WEIGHTS.npz OUT_DIR STEPS

Runs in an environment of its own, with TensorFlow. Dynamic int8: weights in int8, activations
quantised at run time. Writes into OUT_DIR
    cell.tflite      x [1, inputs] and the state in, the state out
    unrolled.tflite  x [T, inputs] and the state in, y [T, units] and the state out; the product of all
                     x is one matrix product
    fused1.tflite, fused.tflite (LSTM)  the operator UNIDIRECTIONAL_SEQUENCE_LSTM over 1 and T steps, which
                     holds its state between calls
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras


class Layer(tf.Module):
    """The equations of a step with explicit state."""

    def __init__(self, cell: str, weights: dict[str, Any]) -> None:
        super().__init__()
        self.cell = cell
        self.w_x = tf.constant(weights["w_x"].T.copy())
        self.w_h = tf.constant(weights["w_h"].T.copy())
        self.both = tf.constant(np.hstack([weights["w_x"], weights["w_h"]]).T.copy())
        self.b_x, self.b_h = tf.constant(weights["b_x"]), tf.constant(weights["b_h"])
        self.b = tf.constant(weights["b_x"] + weights["b_h"])

    def gates(self, gates: Any, c: Any) -> tuple[Any, Any]:
        i, f, g, o = tf.split(gates, 4, axis=1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        return tf.sigmoid(o) * tf.tanh(c), c

    def reset_after(self, of_x: Any, h: Any) -> Any:
        xr, xz, xn = tf.split(of_x, 3, axis=1)
        hr, hz, hn = tf.split(tf.matmul(h, self.w_h) + self.b_h, 3, axis=1)
        n = tf.tanh(xn + tf.sigmoid(xr + hr) * hn)
        return n + tf.sigmoid(xz + hz) * (h - n)

    def step(self, x: Any, h: Any, c: Any = None) -> dict[str, Any]:
        if self.cell == "lstm":
            h, c = self.gates(tf.matmul(tf.concat([x, h], 1), self.both) + self.b, c)
            return {"h_out": h, "c_out": c}
        return {"h_out": self.reset_after(tf.matmul(x, self.w_x) + self.b_x, h)}

    def unrolled(self, x: Any, h: Any, c: Any = None) -> dict[str, Any]:
        lstm = self.cell == "lstm"
        of_x = tf.matmul(x, self.w_x) + (self.b if lstm else self.b_x)
        y = []
        for now in tf.split(of_x, x.shape[0], axis=0):
            if lstm:
                h, c = self.gates(now + tf.matmul(h, self.w_h), c)
            else:
                h = self.reset_after(now, h)
            y.append(h)
        return {"y": tf.concat(y, 0), "h_out": h, **({"c_out": c} if lstm else {})}


def convert(converter: Any, path: Path) -> None:
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    path.write_bytes(converter.convert())


def fused(weights: dict[str, Any], steps: int, path: Path) -> None:
    rows, inputs = weights["w_x"].shape
    layer = tf_keras.layers.LSTM(rows // 4, return_sequences=True)
    model = tf_keras.Sequential([tf_keras.Input((steps, inputs), batch_size=1), layer])
    layer.set_weights([weights["w_x"].T, weights["w_h"].T, weights["b_x"] + weights["b_h"]])
    function = tf.function(lambda x: model(x))
    spec = tf.TensorSpec([1, steps, inputs], tf.float32, "x")
    concrete = function.get_concrete_function(spec)
    convert(tf.lite.TFLiteConverter.from_concrete_functions([concrete], model), path)


def main(cell: str, source: str, out: str, steps: str) -> None:
    weights = dict(np.load(source))
    folder, layer = Path(out), Layer(cell, weights)
    inputs, units = weights["w_x"].shape[1], weights["w_h"].shape[1]
    state = {s: tf.TensorSpec([1, units], tf.float32, s) for s in ("h", "c")[: 2 - (cell == "gru")]}
    for name, call, count in (("cell", layer.step, 1), ("unrolled", layer.unrolled, int(steps))):
        spec = tf.TensorSpec([count, inputs], tf.float32, "x")
        concrete = tf.function(call).get_concrete_function(spec, **state)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], layer)
        convert(converter, folder / f"{name}.tflite")
    if cell == "lstm":
        fused(weights, 1, folder / "fused1.tflite")
        fused(weights, int(steps), folder / "fused.tflite")


if __name__ == "__main__":
    main(*sys.argv[1:])
