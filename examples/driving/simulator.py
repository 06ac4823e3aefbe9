"""A car on a route: its motion, what happens around it, and an expert who drives it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from camera import gray, render
from roads import (
    BRAKE,
    GLASS,
    GREEN,
    LANE,
    POLE,
    RED,
    STEP,
    Board,
    Bytes,
    Floats,
    Junction,
    World,
)

PERIOD = 0.2
"""Seconds of a step."""
CRUISE = 8.0
ACCELERATION, BRAKING = 2.5, 6.0
COMFORT = 2.0
"""Deceleration at which the expert plans stops, and lateral acceleration in curves."""
CAR_LENGTH = 4.4
STANDOFF = 3.5
"""Free metres at which the expert stops before another car; it stops 1 m before a stop line."""
MAX_YAW_RATE = 0.9
BEND = 0.022
"""Curvature, 1/m, from which the action is a turn."""
NAVIGATION = 30.0
"""The navigator announces a junction so many metres ahead."""
ACTIONS = ("straight", "stop", "left", "right")
SCALARS = ("speed / 10 m/s", "nearness of the junction", "turn left", "turn right")


@dataclass
class _Other:
    """A car that stood on the lane: its place and speed, and how long it has had company."""

    at: float
    speed: float = 0.0
    company: float = 0.0
    gone: bool = False


class Drive:
    """One drive through a world.

    Attributes:
        x, y, heading, speed: of the car's middle.
        at: its place along the route, metres.
        collided, left_road, ran_red: whether that has happened (collisions end nothing by themselves).
    """

    def __init__(self, world: World, rng: np.random.Generator | None = None) -> None:
        """`rng` moves the start a little off the lane's middle."""
        self.world = world
        self.index = 16
        self.x, self.y, self.heading = map(float, world.path[self.index])
        self.speed = CRUISE / 2
        if rng is not None:
            aside = rng.uniform(-0.5, 0.5)
            self.x -= aside * np.sin(self.heading)
            self.y += aside * np.cos(self.heading)
            self.heading += rng.uniform(-0.06, 0.06)
            self.speed = rng.uniform(2.0, CRUISE)
        self.others = [_Other(car.at) for car in world.stopped]
        self.waited = [0.0] * len(world.junctions)
        self.collided = self.left_road = self.ran_red = False

    @property
    def at(self) -> float:
        return self.index * STEP

    @property
    def aside(self) -> float:
        """Metres from the middle of the lane."""
        x, y, _ = self.world.path[self.index]
        return float(np.hypot(x - self.x, y - self.y))

    @property
    def finished(self) -> bool:
        """Whether the end of the route has been reached."""
        return self.index + 60 / STEP >= len(self.world.path)

    # --- the surroundings ------------------------------------------------------------------------
    def is_red(self, number: int) -> bool:
        """Whether the light of a junction is red now."""
        junction = self.world.junctions[number]
        return junction.light and self.waited[number] < junction.wait

    def _next_junction(self) -> Junction | None:
        return next((j for j in self.world.junctions if j.end > self.at), None)

    def boards(self) -> list[Board]:
        """Cars on the lane and traffic lights as the camera sees them."""
        made: list[Board] = []
        for car, other in zip(self.world.stopped, self.others, strict=True):
            if other.gone:
                continue
            x, y, heading = self.world.path[round((other.at - CAR_LENGTH / 2) / STEP)]
            made += [
                Board(x, y, 1.9, 0.25, 1.1, car.look),
                Board(x + 0.02, y, 1.5, 1.1, 1.6, GLASS),
            ]
            if other.speed == 0.0:
                for side in (-0.75, 0.75):
                    place = x - side * np.sin(heading), y + side * np.cos(heading)
                    near = place[0] - 0.4 * np.cos(heading), place[1] - 0.4 * np.sin(heading)
                    made.append(Board(*near, 0.4, 0.7, 1.0, BRAKE))
        for number, junction in enumerate(self.world.junctions):
            if junction.light:
                made += self._light(junction, self.is_red(number))
        return made

    def _light(self, junction: Junction, red: bool) -> list[Board]:
        x, y, heading = self.world.path[round((junction.stop + 3.0) / STEP)]
        aside = 0.5 * LANE + 0.8
        x, y = x + aside * np.sin(heading), y - aside * np.cos(heading)
        near = x - 0.05 * np.cos(heading), y - 0.05 * np.sin(heading)
        lamp = Board(*near, 0.7, 2.9, 3.5, RED) if red else Board(*near, 0.7, 2.1, 2.7, GREEN)
        return [
            Board(x, y, 0.25, 0.0, 2.0, POLE),
            Board(x, y, 1.0, 1.9, 3.7, POLE),
            lamp,
        ]

    # --- what the network reads ------------------------------------------------------------------
    def looks(self) -> Bytes:
        """What the camera sees."""
        return render(self.world, self.x, self.y, self.heading, self.boards())

    def frame(self) -> Bytes:
        """The gray image."""
        return gray(self.looks(), self.world.light)

    def scalars(self) -> Floats:
        """Speed and the navigator's announcement, all in 0 … 1 (`SCALARS`)."""
        junction = self._next_junction()
        near = 0.0 if junction is None else 1.0 - (junction.stop - self.at) / NAVIGATION
        turn = 0 if junction is None or near <= 0 else junction.turn
        return np.array(
            [self.speed / 10, min(max(near, 0.0), 1.0), float(turn > 0), float(turn < 0)]
        )

    # --- the expert ------------------------------------------------------------------------------
    def expert(self) -> tuple[int, Floats]:
        """What to do next: the action's number, and wanted speed (m/s) and yaw rate (rad/s)."""
        stopping, speed = self._wanted_speed()
        yaw = float(np.clip(self.speed * self._pursuit(), -MAX_YAW_RATE, MAX_YAW_RATE))
        ahead = float(self.world.curvature[self.index + 4 : self.index + 16].mean())
        action = 1 if stopping else 2 if ahead > BEND else 3 if ahead < -BEND else 0
        return action, np.array([speed, yaw])

    def _pursuit(self) -> float:
        """Curvature of the arc to a point of the lane ahead (Coulter, pure pursuit, 1992)."""
        ahead = 3.0 + 0.35 * self.speed
        x, y, _ = self.world.path[self.index + round(ahead / STEP)]
        angle = np.arctan2(y - self.y, x - self.x) - self.heading
        return 2 * float(np.sin(angle)) / float(np.hypot(x - self.x, y - self.y))

    def _wanted_speed(self) -> tuple[bool, float]:
        """Whether a stop is due, and the speed for it or for the curves ahead."""
        bend = np.abs(self.world.curvature[self.index : self.index + round(14 / STEP)])
        allowed = np.sqrt(COMFORT / np.maximum(bend, COMFORT / CRUISE**2))
        along = np.arange(bend.size) * STEP
        speed = float(np.sqrt(allowed**2 + 2 * COMFORT * along).min())
        room = self._room()
        limit = float(np.sqrt(2 * COMFORT * max(room, 0.0)))
        if limit < 1.0:
            limit = 0.0
        stopping = limit < min(speed, self.speed + 0.4)
        return stopping, min(speed, limit)

    def _room(self) -> float:
        """Metres to where the car has to stop; infinite where it need not."""
        room = np.inf
        for number, junction in enumerate(self.world.junctions):
            free = junction.stop - self.at - CAR_LENGTH / 2 - 1.0
            if self.is_red(number) and free > -2.5:
                room = min(room, free)
        for other in self.others:
            gap = other.at - self.at
            if not other.gone and gap > 0:
                free = gap - 1.5 * CAR_LENGTH - STANDOFF + other.speed**2 / (2 * COMFORT)
                room = min(room, free)
        return room

    # --- motion ----------------------------------------------------------------------------------
    def advance(self, speed: float, yaw_rate: float) -> None:
        """One period with the wanted speed, as fast as the car can, and yaw rate."""
        change = np.clip(speed - self.speed, -BRAKING * PERIOD, ACCELERATION * PERIOD)
        before, self.speed = self.speed, max(0.0, float(self.speed + change))
        mean = 0.5 * (before + self.speed)
        turned = float(np.clip(yaw_rate, -MAX_YAW_RATE, MAX_YAW_RATE)) * PERIOD
        if mean < 0.05:
            turned = 0.0
        self.x += mean * PERIOD * np.cos(self.heading + turned / 2)
        self.y += mean * PERIOD * np.sin(self.heading + turned / 2)
        self.heading += turned
        self._follow()
        self._others_move()
        self._judge()

    def _follow(self) -> None:
        """Find the car's place along the route again."""
        start = max(self.index - 8, 0)
        window = self.world.path[start : self.index + 24, :2]
        self.index = start + int(np.argmin(np.hypot(*(window - (self.x, self.y)).T)))

    def _others_move(self) -> None:
        for car, other in zip(self.world.stopped, self.others, strict=True):
            if other.gone:
                continue
            if 0 < other.at - self.at < 14.0 and self.speed < 1.5:
                other.company += PERIOD
            if other.company > car.wait:
                other.speed = min(other.speed + ACCELERATION * PERIOD, CRUISE + 2)
                other.at += other.speed * PERIOD
                other.gone = other.at > car.at + 40.0
        for number, junction in enumerate(self.world.junctions):
            if junction.stop - self.at < 12.0:
                self.waited[number] += PERIOD

    def _judge(self) -> None:
        self.left_road = self.left_road or not self.world.on_road(self.x, self.y)
        for other in self.others:
            if not other.gone and abs(other.at - CAR_LENGTH / 2 - self.at) < CAR_LENGTH:
                x, y, _ = self.world.path[round((other.at - CAR_LENGTH / 2) / STEP)]
                near = np.hypot(x - self.x, y - self.y)
                self.collided = self.collided or bool(near < 0.5 * CAR_LENGTH + 1.5)
        for number, junction in enumerate(self.world.junctions):
            past = self.at + CAR_LENGTH / 2 - junction.stop
            if self.is_red(number) and 1.5 < past < 6.0 and self.speed > 1.0:
                self.ran_red = True


@dataclass(frozen=True, eq=False)
class Clip:
    """A recorded drive of T steps.

    Attributes:
        frames: uint8 [T, HEIGHT, WIDTH].
        scalars: float32 [T, 4].
        actions: int64 [T], the expert's next action.
        velocities: float32 [T, 2], speed / (10 m/s) and yaw rate that the expert wants.
    """

    frames: Bytes
    scalars: Floats
    actions: np.ndarray
    velocities: Floats


def record(world: World, steps: int, rng: np.random.Generator, disturb: bool = True) -> Clip:
    """A drive by the expert. Now and then something pushes the car aside, so that recovery is seen."""
    drive = Drive(world, rng)
    for _ in range(int(rng.integers(0, 40))):  # clips begin anywhere
        _, (speed, yaw) = drive.expert()
        drive.advance(speed, yaw)
    frames, scalars, actions, velocities = [], [], [], []
    push, left = 0.0, 0
    for _ in range(steps):
        action, wanted = drive.expert()
        frames.append(drive.frame())
        scalars.append(drive.scalars())
        actions.append(action)
        velocities.append(wanted * (0.1, 1.0))
        if disturb and left == 0 and rng.random() < 0.06:
            push, left = float(rng.normal(0, 0.25)), int(rng.integers(2, 6))
        drive.advance(wanted[0], wanted[1] + (push if left else 0.0) * min(drive.speed / 4, 1.0))
        left = max(left - 1, 0)
    return Clip(
        np.stack(frames),
        np.stack(scalars).astype(np.float32),
        np.array(actions),
        np.stack(velocities).astype(np.float32),
    )
