"""curve.json: what is refused."""

import json
from dataclasses import asdict

import pytest

from tritonkit.errors import InputError
from tritonkit.profile.curve import Kind, Lane, Point, Runs, ServiceCurve, read_curve

POINT = Point("closed", 1, 1.0, 0.003, 0.0, 0.002, (Runs(1, 400, 0.002),))
CURVE = ServiceCurve(
    model="m",
    model_sha256="a" * 64,
    machine={"cpu_model": "x", "cpus": 2},
    kit_version="0",
    max_rows=8,
    kinds=(Kind(8, 1.0),),
    kind_of=(0, 0),
    lanes=(Lane(1, 1, (POINT, POINT), (POINT,), (1.0,)),),
)


@pytest.fixture
def path(tmp_path):
    CURVE.write(tmp_path / "curve.json")
    return tmp_path / "curve.json"


def changed(path, **changes):
    """The file with some of its values replaced."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


def test_its_own_model_and_machine_are_fine(path):
    """A curve of this model's file, measured here, is taken."""
    read_curve(path).require(path, "a" * 64, {"cpu_model": "x", "cpus": 2, "python": "3"})


def test_another_model_is_refused(path):
    """Another file's runs take another time."""
    with pytest.raises(InputError, match="another model file"):
        read_curve(path).require(path, "b" * 64, dict(CURVE.machine))


@pytest.mark.parametrize("machine", [{"cpu_model": "y", "cpus": 2}, {"cpu_model": "x", "cpus": 4}])
def test_another_machine_is_refused(path, machine):
    """Another CPU, or more of them."""
    with pytest.raises(InputError, match="another machine"):
        read_curve(path).require(path, "a" * 64, machine)


@pytest.mark.parametrize("text", ["", "x", "[]", "{}", '{"schema": 1}', "null", '{"schema": 1.5}'])
def test_what_is_no_curve_is_refused(path, text):
    """Anything else is said to be none, in one line."""
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_curve(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("changes", [{"lanes": []}, {"kinds": []}, {"kind_of": [3]}, {"extra": 1}])
def test_a_curve_with_a_hole_is_refused(path, changes):
    """A file that was cut or changed by hand."""
    with pytest.raises(InputError, match="no whole curve"):
        read_curve(changed(path, **changes))


def test_a_missing_file_is_refused(tmp_path):
    """Said with its path."""
    with pytest.raises(InputError, match="cannot be read"):
        read_curve(tmp_path / "none.json")


def test_nothing_is_left_half_written(tmp_path):
    """A curve that cannot be written leaves no file."""
    broken = ServiceCurve(**{**vars(CURVE), "max_rows": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        broken.write(tmp_path / "curve.json")
    assert list(tmp_path.iterdir()) == []


def test_around_a_point():
    """A request's time is its queue, its run and what is around them."""
    assert POINT.around_s == pytest.approx(0.001)


def test_means_are_of_runs():
    """Large runs count once, not once for each of their requests."""
    runs = (Runs(1, 3, 0.001), Runs(9, 1, 0.005))
    point = Point("closed", 9, 1.0, 0.01, 0.001, 0.004, runs)
    assert (point.executions, point.mean_rows) == (4, 3.0)
    assert point.mean_run_s == pytest.approx(0.002)


LANE = json.loads(json.dumps({"lanes": [asdict(lane) for lane in CURVE.lanes]}))["lanes"][0]


def lane_with(**changes):
    """The lane with its first point changed."""
    return {"lanes": [LANE | {"batched": [LANE["batched"][0] | changes]}]}


@pytest.mark.parametrize(
    "changes",
    [
        {"max_rows": 0},
        {"max_rows": "a"},
        {"machine": None},
        {"model": 7},
        {"kinds": [{"elements": 8, "cost": 0.0}]},
        lane_with(took_s=0.0),
        lane_with(latency_s=-1.0),
        lane_with(queue_s=float("nan")),
        lane_with(runs=[]),
        lane_with(runs=[{"rows": 9, "count": 1, "mean_s": 0.1}]),
        lane_with(runs=[{"rows": 1, "count": 1, "mean_s": 0.0}]),
        {"lanes": [LANE | {"threads": 0}]},
        {"lanes": [LANE | {"alone": [0.0]}]},
    ],
)
def test_what_cannot_have_been_measured_is_refused(path, changes):
    """Rather than answered with numbers made of it."""
    with pytest.raises(InputError, match="no whole curve"):
        read_curve(changed(path, **changes))
