"""What is taken of a plan, and plans that are none."""

import json

import pytest

from tritonkit.deploy.planned import planned, read_plan
from tritonkit.errors import InputError
from tritonkit.plan.settings import Settings
from tritonkit.repository.config import DynamicBatching

BATCHED = Settings(8, DynamicBatching(max_queue_delay_us=1000), 2, 1)


@pytest.fixture
def found(plan_file):
    """`found(levels=…)`: what is taken of a plan of BATCHED."""

    def read(settings=BATCHED, **measured):
        path = plan_file("m", BATCHED, **measured)
        return planned(path, read_plan(path), settings)

    return read


def test_capacity(found):
    """The interval of the capacity is that of the settings that are deployed."""
    assert found(interval_rps=(300.0, None)).capacity_interval_rps == (300.0, None)


def test_queue(found, level):
    """The wait is the median of the levels at 60 to 80 % of the capacity."""
    levels = [level(600, 1), level(700, 2), level(800, 9), level(500, 50), level(900, 50)]
    assert found(levels=levels).queue_ms == 2


def test_failed_levels(found, level):
    """Levels that broke the budget, or whose generator was the limit, say nothing."""
    levels = [level(700, 2), level(700, 90, holds=False), level(700, 80, bound=True)]
    assert found(levels=levels).queue_ms == 2


def test_no_level(found, level):
    """Without such a level the wait is not known."""
    assert found(levels=[level(990, 2)]).queue_ms is None
    assert found(levels=[level(700, 2)], capacity_rps=None).queue_ms is None


def test_other_settings(found):
    """A plan that did not try the settings of the config is refused, with its winner."""
    with pytest.raises(InputError, match=r"\(batch 8, .*its winner is batch 8, delay 1 ms"):
        found(Settings(8, DynamicBatching(), 2, 1))


def test_remark(found):
    """A plan that is not for Triton says so."""
    assert found(conclusion="ort_baseline").remark == "It is so."
    assert found(conclusion="triton_batched").remark == ""


def test_folder(plan_file):
    """The folder of a plan stands for its plan.json."""
    path = plan_file("m", BATCHED)
    assert read_plan(path.parent) == read_plan(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '"plan"', "[" * 100_000, "\0\xff"])
def test_no_plan(tmp_path, text):
    """A file that is no plan is refused."""
    path = tmp_path / "plan.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"not a plan\.json"):
        read_plan(path)


def test_schema(plan_file):
    """A plan of another schema is refused."""
    path = plan_file("m", BATCHED)
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 2}))
    with pytest.raises(InputError, match="its schema is 2, expected 1"):
        read_plan(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tried", None),
        ("tried", {"settings": 1}),
        ("tried", [{"settings": {"max_batch_size": []}}]),
        ("winner", {}),
        ("machine", None),
        ("slo_p99_ms", "soon"),
        ("slo_p99_ms", float("nan")),
    ],
)
def test_half_a_plan(plan_file, key, value):
    """A plan that lacks something, or has something else there, is refused in one line."""
    document = json.loads(plan_file("m", BATCHED).read_text()) | {key: value}
    settings = Settings(9, None) if key == "winner" else BATCHED
    with pytest.raises(InputError, match=r"not a whole plan\.json"):
        planned("plan.json", document, settings)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), "many", None])
def test_numbers(plan_file, level, number):
    """A capacity or a wait that is no finite number is refused."""
    document = json.loads(plan_file("m", BATCHED, levels=[level(700, 2)]).read_text())
    (tried,) = document["tried"]
    tried["levels"][0]["time_split"]["queue_ms"] = number
    with pytest.raises(InputError, match=r"not a whole plan\.json"):
        planned("plan.json", document, BATCHED)
    tried["levels"] = []
    tried["measured"]["capacity_interval_rps"] = [number, None]
    with pytest.raises(InputError, match=r"not a whole plan\.json"):
        planned("plan.json", document, BATCHED)
