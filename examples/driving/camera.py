"""The camera: what is seen from a pose, as a perspective image of looks."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from roads import GRASS_0, SKY, Board, Bytes, Floats, World

WIDTH, HEIGHT = 100, 60
SAMPLES = 2
"""Samples of a pixel on each side; their mean is the pixel."""
FOCAL = 62.0
"""Focal length in pixels: 78° across."""
HORIZON = 22.0
"""Row of the horizon."""
ALTITUDE = 1.4
FORWARD = 1.0
"""The camera is so far before the car's middle."""
FAR = 70.0
NEAR = 1.2

COLOURS = np.array(
    [
        (176, 202, 228), (96, 128, 66), (84, 116, 58), (110, 138, 76), (84, 84, 88), (78, 78, 82),
        (238, 238, 232), (34, 34, 36), (255, 48, 36), (64, 255, 96), (40, 62, 140), (150, 30, 34),
        (206, 206, 210), (255, 40, 40), (24, 30, 38), (178, 140, 112), (198, 188, 168),
        (146, 108, 96), (84, 62, 44), (46, 86, 44), (62, 104, 48),
    ],
    np.uint8,
)  # fmt: skip
"""Red, green and blue of every look."""
GRAYS = (COLOURS @ np.array([0.299, 0.587, 0.114])).round().astype(np.float32)
"""Luminance (ITU-R BT.601) of every look."""


def _ground_places() -> tuple[int, Floats, Floats]:
    """First row of samples that shows the ground, and how far ahead and to the left each sees."""
    rows = (np.arange(HEIGHT * SAMPLES) + 0.5) / SAMPLES
    first = int(np.argmax(ALTITUDE * FOCAL / np.maximum(rows - HORIZON, 1e-9) < FAR))
    ahead = ALTITUDE * FOCAL / (rows[first:, None] - HORIZON)
    columns = (np.arange(WIDTH * SAMPLES) + 0.5) / SAMPLES
    left = ahead * (WIDTH / 2 - columns) / FOCAL
    return first, np.broadcast_to(ahead, left.shape).astype(np.float32), left.astype(np.float32)


_FIRST, _AHEAD, _LEFT = _ground_places()
_HORIZON_ROW = int(HORIZON * SAMPLES)


def render(world: World, x: float, y: float, heading: float, boards: Iterable[Board]) -> Bytes:
    """Looks [HEIGHT·SAMPLES, WIDTH·SAMPLES] seen by a car at x, y; `boards` besides the scenery."""
    sin, cos = float(np.sin(heading)), float(np.cos(heading))  # Python's floats keep float32 narrow
    x, y = x + FORWARD * cos, y + FORWARD * sin
    image = np.empty((HEIGHT * SAMPLES, WIDTH * SAMPLES), np.uint8)
    image[:_HORIZON_ROW] = SKY
    image[_HORIZON_ROW:_FIRST] = GRASS_0
    image[_FIRST:] = world.ground[
        world.cell(x + _AHEAD * cos - _LEFT * sin, y + _AHEAD * sin + _LEFT * cos)
    ]
    objects = np.array([*world.scenery, *boards])
    dx, dy = objects[:, 0] - x, objects[:, 1] - y
    ahead = dx * cos + dy * sin
    seen = np.flatnonzero((ahead > NEAR) & (ahead < FAR))
    seen = seen[np.argsort(-ahead[seen], kind="stable")]
    objects, scale = objects[seen], SAMPLES * FOCAL / ahead[seen]
    middle = SAMPLES * WIDTH / 2 - (dy * cos - dx * sin)[seen] * scale
    half, ground = 0.5 * objects[:, 2] * scale, SAMPLES * HORIZON + ALTITUDE * scale
    edges = np.stack(
        [
            ground - objects[:, 4] * scale,
            ground - objects[:, 3] * scale,
            middle - half,
            middle + half,
        ]
    )
    edges = np.maximum(np.rint(edges), 0).astype(int)
    for (top, bottom, left, right), look in zip(
        edges.T.tolist(), objects[:, 5].tolist(), strict=True
    ):
        image[top:bottom, left:right] = look
    return image


def gray(looks: Bytes, light: float) -> Bytes:
    """The image that the network reads, luminance [HEIGHT, WIDTH]."""
    fine = (GRAYS * np.float32(light / SAMPLES**2))[looks]
    rows = sum(fine[i::SAMPLES] for i in range(SAMPLES))
    return np.minimum(sum(rows[:, i::SAMPLES] for i in range(SAMPLES)), 255).astype(np.uint8)


def colour(looks: Bytes, light: float) -> npt.NDArray[np.uint8]:
    """An image to look at, RGB [HEIGHT·SAMPLES, WIDTH·SAMPLES, 3]."""
    return np.minimum(light * COLOURS[looks].astype(np.float32), 255).astype(np.uint8)
