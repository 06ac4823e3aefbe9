"""The driving example: the road simulator, its camera and its expert; the sizes of the network."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from modelflex.core.data import Sequences
from modelflex.core.model import Layer, Model, check_model
from modelflex.core.program import build_program
from modelflex.core.weight import float_weight
from modelflex.execute.interpret import Interpreter

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "driving"
sys.path[:0] = [str(EXAMPLE), str(EXAMPLE.parent)]

import approximations  # noqa: E402
import camera  # noqa: E402
import draw  # noqa: E402
import drive  # noqa: E402
import recurrent  # noqa: E402
import roads  # noqa: E402
import simulator  # noqa: E402
import tables  # noqa: E402
from roads import Board  # noqa: E402
from simulator import Drive  # noqa: E402

SEEDS = range(400_000, 400_006)


@pytest.fixture(scope="module")
def worlds() -> list[roads.World]:
    return [roads.make_world(seed) for seed in SEEDS]


def empty_world() -> roads.World:
    """Grass and nothing else, but for what tests put there."""
    ground = np.full((800, 800), roads.GRASS_0, np.uint8)
    path = np.zeros((2000, 3))
    path[:, 0] = np.arange(2000) * roads.STEP
    return roads.World(
        path, np.zeros(2000), (), (), (Board(-50, 0, 1, 0, 1, roads.TRUNK),), ground,
        np.ones_like(ground, bool), (-100.0, -100.0), 1.0,
    )  # fmt: skip


def test_a_seed_gives_one_world(worlds: list[roads.World]) -> None:
    again = roads.make_world(SEEDS[0])
    np.testing.assert_array_equal(again.ground, worlds[0].ground)
    assert again.junctions == worlds[0].junctions
    one, other = (simulator.record(again, 5, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(one.frames, other.frames)
    assert not np.array_equal(worlds[0].ground, worlds[1].ground)


def test_the_route_has_its_curvature(worlds: list[roads.World]) -> None:
    """Turning along the lane equals the curvature summed; both lanes' middles lie on the road."""
    for world in worlds:
        turned = world.path[-1, 2] - world.path[0, 2]
        assert turned == pytest.approx(world.curvature[:-1].sum() * roads.STEP)
        assert all(world.on_road(x, y) for x, y, _ in world.path[::7])
        aside = world.path[::40]
        x = aside[:, 0] + 8 * np.sin(aside[:, 2])
        y = aside[:, 1] - 8 * np.cos(aside[:, 2])
        assert np.mean([world.on_road(*place) for place in zip(x, y, strict=True)]) < 0.5


def test_the_camera_is_a_pinhole() -> None:
    """An upright board of known size and place fills the rectangle that similar triangles give."""
    world = empty_world()
    ahead, left, width, top = 10.0, 1.5, 2.0, 3.0
    board = Board(camera.FORWARD + ahead, left, width, 0.0, top, roads.RED)
    looks = camera.render(world, 0.0, 0.0, 0.0, [board])
    rows, columns = np.nonzero(looks == roads.RED)
    scale = camera.SAMPLES * camera.FOCAL / ahead
    middle = camera.SAMPLES * camera.WIDTH / 2 - left * scale
    assert columns.min() == pytest.approx(middle - width / 2 * scale, abs=1)
    assert columns.max() + 1 == pytest.approx(middle + width / 2 * scale, abs=1)
    horizon = camera.SAMPLES * camera.HORIZON
    assert rows.max() + 1 == pytest.approx(horizon + camera.ALTITUDE * scale, abs=1)
    assert rows.min() == pytest.approx(horizon - (top - camera.ALTITUDE) * scale, abs=1)


def test_the_ground_lies_where_it_is_seen() -> None:
    """A marked cell 8 m ahead and 1.9 m to the right shows where its place projects to."""
    world = empty_world()
    ahead, right = 8.125, 1.875  # the middle of a cell
    x, y = camera.FORWARD + ahead, -right
    row, column = world.cell(np.array([x]), np.array([y]))
    world.ground[row[0] - 1 : row[0] + 2, column[0] - 1 : column[0] + 2] = roads.LINE
    rows, columns = np.nonzero(camera.render(world, 0.0, 0.0, 0.0, []) == roads.LINE)
    scale = camera.SAMPLES * camera.FOCAL / ahead
    assert columns.mean() == pytest.approx(camera.SAMPLES * camera.WIDTH / 2 + right * scale, abs=1)
    expected = camera.SAMPLES * camera.HORIZON + camera.ALTITUDE * scale
    assert rows.mean() == pytest.approx(expected, abs=1)


def test_nearer_boards_hide_farther_ones() -> None:
    world = empty_world()
    far, near = Board(20, 0, 4, 0, 2, roads.GREEN), Board(8, 0, 6, 0, 3, roads.RED)
    looks = camera.render(world, 0.0, 0.0, 0.0, [near, far])
    assert (looks == roads.RED).any()
    assert not (looks == roads.GREEN).any()


def test_the_expert_drives_without_accident(worlds: list[roads.World]) -> None:
    """Whole routes: no collision, no red light, on the road, and every action occurs."""
    seen = set()
    for number, world in enumerate(worlds):
        car = Drive(world, np.random.default_rng(number))
        for _ in range(1500):
            action, (speed, yaw) = car.expert()
            seen.add(action)
            car.advance(speed, yaw)
            if car.finished:
                break
        assert car.finished
        assert drive.failure_of(car) == ""
    assert seen == {0, 1, 2, 3}


def test_driving_on_blindly_ends_in_accidents(worlds: list[roads.World]) -> None:
    """Straight ahead at cruising speed: off the road in the first bend, or into what stands there."""

    def blind(frames: np.ndarray, scalars: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.tile([1.0, 0, 0, 0], (len(frames), 1)), np.tile([0.8, 0.0], (len(frames), 1))

    outcomes = drive.drive_all(worlds, blind)
    assert all(outcome.failure for outcome in outcomes)


def test_what_stands_on_the_lane_is_hit() -> None:
    """A car that keeps its speed collides once the gap is gone, not before."""
    world = empty_world()
    world = roads.World(**{**vars(world), "stopped": (roads.Stopped(40.0, 100.0, roads.CAR_0),)})
    car = Drive(world)
    while not car.collided and car.at < 60:
        car.advance(8.0, 0.0)
    rear = 40.0 - simulator.CAR_LENGTH
    assert car.at + simulator.CAR_LENGTH / 2 == pytest.approx(rear, abs=1.8)


def test_a_red_light_is_run_or_waited_for() -> None:
    world = empty_world()
    junction = roads.Junction(40.0, 55.0, 0, True, 3.0)
    world = roads.World(**{**vars(world), "junctions": (junction,)})
    reckless, careful = Drive(world), Drive(world)
    for _ in range(40):
        reckless.advance(8.0, 0.0)
    assert reckless.ran_red
    waited = 0
    while careful.at < 60:
        _, (speed, yaw) = careful.expert()
        careful.advance(speed, yaw)
        waited += careful.speed == 0.0
    assert not careful.ran_red
    assert waited > 0


def small_recurrent(rng: np.random.Generator) -> recurrent.Recurrent:
    units, features, outputs = 8, 20, 6
    shapes = ((4 * units, features + 2 + units), (4 * units,), (outputs, units), (outputs,))
    made = (rng.normal(0, 0.5, shape).astype(np.float32) for shape in shapes)
    return recurrent.Recurrent(*made)


def test_prefixes_of_terms_are_what_the_model_computes() -> None:
    """Matrix and bias of a prefix put into the equations = the interpreter's step with so many terms."""
    rng = np.random.default_rng(0)
    own, features = small_recurrent(rng), rng.normal(size=(3, 9, 20)).astype(np.float32)
    sample = approximations.seen_by(own, features)
    data = Sequences(features.reshape(27, 20), np.array([9, 9, 9]))
    exact = own.run(features)
    for made in (
        approximations.data_aware(own, sample, np.eye(32), terms=32),
        approximations.published(own, kept=7, terms=40),
    ):
        model = approximations.progressive_model(own, made)
        interpreter = Interpreter(build_program(model))
        for step in approximations.prefixes(own, made):
            found = interpreter.run(data, terms={"lstm0.w": step.terms}).outputs
            wanted = own.run(features, *step.make()).reshape(27, 6)
            np.testing.assert_allclose(found, wanted, atol=2e-5)
            used = model.weights["lstm0.w"].operations(step.terms)
            assert step.operations == used
        assert np.abs(wanted - exact.reshape(27, 6)).max() < (1e-3 if made.kept == 30 else 0.5)
    dense = Interpreter(build_program(approximations.progressive_model(own, None)))
    np.testing.assert_allclose(dense.run(data).outputs, exact.reshape(27, 6), atol=2e-5)


def test_tiles_end_in_the_exact_network() -> None:
    own = small_recurrent(np.random.default_rng(1))
    for tiles in (approximations.row_tiles(own, 4), approximations.column_tiles(own, 5)):
        np.testing.assert_array_equal(tiles[-1].make()[0], own.w)
        assert tiles[-1].operations == 2 * own.w.size
        assert not tiles[0].make()[0].any()
        kept = [np.count_nonzero(tile.make()[0]) for tile in tiles]
        assert kept == [tile.operations // 2 for tile in tiles]


def test_what_a_level_costs() -> None:
    """From the cheapest point on from which nothing is above the level, in any order of points."""
    points = [(4.0, 0.01), (1.0, 0.05), (2.0, 0.2), (3.0, 0.1), (5.0, 0.02)]
    assert tables.reached(points, 0.1) == 3.0
    assert tables.reached(points, 0.02) == 4.0
    assert tables.reached(points, 0.3) == 1.0
    assert tables.reached(points, 0.01) is None


def test_tables_stand_between_their_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- one -->\nold\n<!-- end -->\nb\n<!-- two -->\n<!-- end -->\n")
    tables.write_tables({"one": "1", "two": "2"}, page)
    tables.write_tables({"one": "3"}, page)
    assert (
        page.read_text() == "a\n<!-- one -->\n3\n<!-- end -->\nb\n<!-- two -->\n2\n<!-- end -->\n"
    )
    with pytest.raises(ValueError, match="0 places"):
        tables.write_tables({"three": ""}, page)


def test_the_page_shows_what_was_measured(tmp_path: Path) -> None:
    page = tmp_path / "driving.md"
    page.write_text(tables.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    content = json.loads(draw.RESULTS.read_text(encoding="utf-8"))
    tables.write_tables(draw.page_tables(content), page)
    assert page.read_text(encoding="utf-8") == tables.PAGE.read_text(encoding="utf-8")


def test_the_model_has_the_published_sizes() -> None:
    """R = 64 and C = 8320 = 8250 features of the encoder + 4 scalars + 2 velocities + 64 units."""
    pytest.importorskip("torch")
    import export

    layers = tuple(Layer(**entry) for entry in export.layers())
    weights = {
        name: float_weight(np.zeros(shape, np.float32), None, 4 if "lstm" in name else 1)
        for layer in layers
        for name, shape in layer.weight_shapes.items()
    }
    model = check_model(Model("driving", layers, weights))
    lstm = model.layers[-2]
    assert (lstm.units, lstm.inputs + lstm.units) == (64, 8320)
    assert model.inputs == camera.WIDTH * camera.HEIGHT + 4
    assert model.outputs == 6
