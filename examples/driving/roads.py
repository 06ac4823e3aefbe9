"""Roads drawn from a seed: a route with curves and junctions, what stands on it, and a map of the ground.

Lengths are metres, angles radians (counter-clockwise), times seconds. A route is sampled every `STEP`
metres of its centre line; lateral offsets are positive to the left. Traffic keeps to the right.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

STEP = 0.25
CELL = 0.25
"""Side of a cell of the map."""
LANE = 3.5
LENGTH = 320.0
"""A route is at least so long."""
TURN_RADIUS = 9.0
BRANCH = 45.0
"""Length of the roads that leave a junction beside the route."""
MARGIN = 90.0
"""Ground around the route that the map holds."""

# What a cell or a pixel shows; `camera.COLOURS` has their colours.
(SKY, GRASS_0, GRASS_1, GRASS_2, ASPHALT_0, ASPHALT_1, LINE, POLE, RED, GREEN, CAR_0, CAR_1, CAR_2,
 BRAKE, GLASS, HOUSE_0, HOUSE_1, HOUSE_2, TRUNK, LEAVES_0, LEAVES_1) = range(21)  # fmt: skip


@dataclass(frozen=True)
class Junction:
    """Where roads meet.

    Attributes:
        stop: place of the stop line along the route.
        end: place along the route where it has been passed.
        turn: 1 where the route turns left, −1 right, 0 where it goes straight on.
        light: whether there is a traffic light.
        wait: seconds that a light stays red once the car is near; 0 for one that is green.
    """

    stop: float
    end: float
    turn: int
    light: bool
    wait: float


@dataclass(frozen=True)
class Stopped:
    """A car that stands on the lane at the place `at` and drives on `wait` seconds after one came near."""

    at: float
    wait: float
    look: int


class Board(NamedTuple):
    """An upright rectangle that faces the camera: centre on the ground, width, bottom, top, look."""

    x: float
    y: float
    width: float
    bottom: float
    top: float
    look: int


@dataclass(frozen=True, eq=False)
class World:
    """A route and its surroundings.

    Attributes:
        path: x, y and heading of the right lane's middle at every `STEP` of the route [n, 3].
        curvature: of the centre line, 1/m [n].
        junctions, stopped: in the order of the route.
        scenery: houses, trees and parked cars.
        ground: what every cell of the map shows [rows (y), columns (x)].
        road: whether a cell is road.
        origin: x and y of the map's first cell.
        light: brightness of the scene relative to noon.
    """

    path: Floats
    curvature: Floats
    junctions: tuple[Junction, ...]
    stopped: tuple[Stopped, ...]
    scenery: tuple[Board, ...]
    ground: Bytes
    road: npt.NDArray[np.bool_]
    origin: tuple[float, float]
    light: float

    def cell(self, x: Floats, y: Floats) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Row and column of the map's cells at the places x, y; the nearest ones outside it."""
        rows, columns = self.ground.shape
        row = ((y - self.origin[1]) * (1 / CELL)).astype(np.int32)
        column = ((x - self.origin[0]) * (1 / CELL)).astype(np.int32)
        return np.clip(row, 0, rows - 1, out=row), np.clip(column, 0, columns - 1, out=column)

    def on_road(self, x: float, y: float) -> bool:
        """Whether the place is on a road."""
        row, column = self.cell(np.array([x]), np.array([y]))
        return bool(self.road[row[0], column[0]])


@dataclass
class _Plan:
    """A route while it is drawn: curvature at every step, and places of what stands on it."""

    curvature: list[float] = field(default_factory=list)
    junctions: list[Junction] = field(default_factory=list)
    turns: list[int] = field(default_factory=list)

    @property
    def length(self) -> float:
        return len(self.curvature) * STEP

    def add(self, length: float, curvature: float) -> None:
        self.curvature += [curvature] * max(1, round(length / STEP))


def make_world(seed: int) -> World:
    """The world of a seed."""
    rng = np.random.default_rng([seed, 0x0D21])
    while True:
        plan = _draw_plan(rng)
        centre = _trace(np.array(plan.curvature))
        if not _meets_itself(centre):
            break
    path = centre.copy()
    path[:, 0] += 0.5 * LANE * np.sin(centre[:, 2])
    path[:, 1] -= 0.5 * LANE * np.cos(centre[:, 2])
    origin = (float(centre[:, 0].min()) - MARGIN, float(centre[:, 1].min()) - MARGIN)
    extent = np.ptp(centre[:, :2], axis=0) + 2 * MARGIN
    ground = _grass(rng, int(extent[1] / CELL), int(extent[0] / CELL))
    road = np.zeros(ground.shape, bool)
    _paint(rng, ground, road, origin, centre, plan)
    scenery = _scenery(rng, centre, road, origin)
    stopped = _stopped(rng, plan)
    return World(
        path, np.array(plan.curvature), tuple(plan.junctions), stopped, scenery, ground, road,
        origin, float(rng.uniform(0.75, 1.15)),
    )  # fmt: skip


def _draw_plan(rng: np.random.Generator) -> _Plan:
    plan = _Plan()
    plan.add(rng.uniform(10, 30), 0.0)
    while plan.length < LENGTH:
        kind = rng.choice(3, p=(0.2, 0.4, 0.4))
        if kind == 0:
            plan.add(rng.uniform(10, 30), 0.0)
        elif kind == 1:
            radius, angle = rng.uniform(25, 80), rng.uniform(0.3, 0.9)
            plan.add(radius * angle, rng.choice((-1, 1)) / radius)
        else:
            _add_junction(rng, plan)
    plan.add(60.0, 0.0)  # what is seen from the end
    return plan


def _add_junction(rng: np.random.Generator, plan: _Plan) -> None:
    plan.add(rng.uniform(12, 22), 0.0)
    stop = plan.length
    plan.add(2.0, 0.0)
    turn = int(rng.choice((-1, 0, 1), p=(0.38, 0.24, 0.38)))
    length = TURN_RADIUS * (np.pi / 2 if turn else 2.0)
    plan.add(length, turn / TURN_RADIUS)
    light = bool(rng.random() < 0.65)
    wait = float(rng.uniform(1.5, 5.0)) if light and rng.random() < 0.65 else 0.0
    plan.junctions.append(Junction(stop, plan.length, turn, light, wait))
    plan.add(rng.uniform(12, 20), 0.0)


def _trace(curvature: Floats) -> Floats:
    """x, y, heading [n, 3] of a line with this curvature, from the origin along the x axis."""
    heading = np.concatenate([[0.0], np.cumsum(curvature * STEP)[:-1]])
    middle = heading + 0.5 * STEP * curvature
    x = np.concatenate([[0.0], np.cumsum(np.cos(middle) * STEP)[:-1]])
    y = np.concatenate([[0.0], np.cumsum(np.sin(middle) * STEP)[:-1]])
    return np.stack([x, y, heading], axis=1)


def _meets_itself(centre: Floats) -> bool:
    """Whether parts of the route that are no neighbours come near each other."""
    points, along = centre[::8, :2], np.arange(0, len(centre), 8) * STEP
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    return bool(np.any((apart < 28.0) & (np.abs(along[:, None] - along[None]) > 50.0)))


def _grass(rng: np.random.Generator, rows: int, columns: int) -> Bytes:
    tile = rng.choice(
        np.array([GRASS_0, GRASS_1, GRASS_2], np.uint8), (48, 48), p=(0.6, 0.25, 0.15)
    )
    tile = tile.repeat(4, axis=0).repeat(4, axis=1)
    times = -(-rows // tile.shape[0]), -(-columns // tile.shape[1])
    return np.tile(tile, times)[:rows, :columns].copy()


def _paint(
    rng: np.random.Generator,
    ground: Bytes,
    road: npt.NDArray[np.bool_],
    origin: tuple[float, float],
    centre: Floats,
    plan: _Plan,
) -> None:
    """Roads with lines; a junction has none."""
    crossings = []
    for junction in plan.junctions:
        x, y, heading = centre[round((junction.stop + 2.0) / STEP)]
        x, y = x + TURN_RADIUS * np.cos(heading), y + TURN_RADIUS * np.sin(heading)
        crossings.append((x, y))
        sides = {junction.turn, *(side for side in (-1, 0, 1) if rng.random() < 0.6)}
        if len(sides) == 1:
            sides.add(1 if junction.turn <= 0 else 0)
        for side in sorted(sides):
            angle = heading + side * np.pi / 2
            along = np.arange(0.0, BRANCH, STEP)
            line = np.stack(
                [x + along * np.cos(angle), y + along * np.sin(angle), np.full_like(along, angle)],
                axis=1,
            )
            _paint_line(ground, road, origin, line)
    _paint_line(ground, road, origin, centre)
    for x, y in crossings:
        _clear(ground, road, origin, x, y)
    for junction in plan.junctions:
        pose = centre[round(junction.stop / STEP)]
        across = np.arange(-LANE + 0.2, -0.1, 0.1)
        for ahead in (0.0, 0.2):
            _stamp(ground, origin, pose[None], across, np.full((1, across.size), LINE), ahead)


def _paint_line(
    ground: Bytes, road: npt.NDArray[np.bool_], origin: tuple[float, float], line: Floats
) -> None:
    across = np.arange(-LANE - 0.2, LANE + 0.21, 0.1)
    looks = np.full((len(line), across.size), ASPHALT_0, np.uint8)
    looks[np.arange(len(line)) // 24 % 2 == 0] = ASPHALT_1
    looks[:, np.abs(np.abs(across) - LANE + 0.1) < 0.19] = LINE
    dashes = np.arange(len(line)) * STEP % 6.0 < 3.0
    looks[np.ix_(dashes, np.abs(across) < 0.15)] = LINE
    for ahead in (0.0, 0.5 * STEP):  # twice as dense as the cells: no holes on curves
        _stamp(ground, origin, line, across, looks, ahead)
        _stamp(road, origin, line, across, np.ones_like(looks), ahead)


def _stamp(
    onto: npt.NDArray[np.generic],
    origin: tuple[float, float],
    line: Floats,
    across: Floats,
    looks: npt.NDArray[np.generic],
    ahead: float,
) -> None:
    """Write looks [n, offsets] at the offsets to the left of each pose of the line [n, 3]."""
    sin, cos = np.sin(line[:, 2:]), np.cos(line[:, 2:])
    x = line[:, :1] + ahead * cos - across * sin
    y = line[:, 1:2] + ahead * sin + across * cos
    rows = np.clip(((y - origin[1]) / CELL).astype(int), 0, onto.shape[0] - 1)
    columns = np.clip(((x - origin[0]) / CELL).astype(int), 0, onto.shape[1] - 1)
    onto[rows, columns] = looks


def _clear(
    ground: Bytes, road: npt.NDArray[np.bool_], origin: tuple[float, float], x: float, y: float
) -> None:
    """No lines where roads meet: within the turns' radius of the middle, road is bare."""
    reach = TURN_RADIUS - 1.0
    row, column = int((y - origin[1] - reach) / CELL), int((x - origin[0] - reach) / CELL)
    size = int(2 * reach / CELL) + 2
    part = slice(row, row + size), slice(column, column + size)
    down, across = np.mgrid[part]
    near = np.hypot((across + 0.5) * CELL + origin[0] - x, (down + 0.5) * CELL + origin[1] - y)
    ground[part][(near < reach) & road[part]] = ASPHALT_0


def _stopped(rng: np.random.Generator, plan: _Plan) -> tuple[Stopped, ...]:
    """At most three cars on the lane, none near a junction."""
    found: list[Stopped] = []
    for at in np.sort(rng.uniform(30.0, plan.length - 80.0, 6)):
        busy = any(j.stop - 14.0 < at < j.end + 10.0 for j in plan.junctions)
        if busy or (found and at - found[-1].at < 60.0) or len(found) == 3:
            continue
        found.append(
            Stopped(float(at), float(rng.uniform(1.5, 4.0)), int(rng.integers(CAR_0, CAR_2 + 1)))
        )
    return tuple(found)


def _scenery(
    rng: np.random.Generator,
    centre: Floats,
    road: npt.NDArray[np.bool_],
    origin: tuple[float, float],
) -> tuple[Board, ...]:
    """Houses and trees that stand clear of every road."""
    boards: list[Board] = []
    for at in np.arange(2, len(centre), 20):
        x, y, heading = centre[at]
        side = rng.choice((-1.0, 1.0)) * rng.uniform(6.5, 24.0)
        x, y = x - side * np.sin(heading), y + side * np.cos(heading)
        row, column = int((y - origin[1]) / CELL), int((x - origin[0]) / CELL)
        if road[row - 8 : row + 9, column - 8 : column + 9].any():
            continue
        if abs(side) > 11 and rng.random() < 0.5:
            look = int(rng.integers(HOUSE_0, HOUSE_2 + 1))
            boards.append(Board(x, y, rng.uniform(5, 9), 0.0, rng.uniform(3, 7), look))
        else:
            top, width = rng.uniform(2.5, 5.0), rng.uniform(1.2, 2.6)
            look = int(rng.integers(LEAVES_0, LEAVES_1 + 1))
            boards.append(Board(x, y, 0.4, 0.0, 0.45 * top, TRUNK))
            boards.append(Board(x, y, width, 0.4 * top, top, look))
    return tuple(boards)
