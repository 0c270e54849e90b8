"""`tritonkit load`: which level it makes of what was asked for, and its numbers for people."""

import json
import re

import pytest

from tritonkit.cli.load import _level, _ms, _offered
from tritonkit.errors import InputError
from tritonkit.load.level import LevelRecord
from tritonkit.stats.latency import summarise


def trace(tmp_path, *starts_s):
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(json.dumps({"t_s": start_s}) + "\n" for start_s in starts_s))
    return str(path)


def record(mode, offered):
    stats = summarise([], duration_s=1.0, open_loop=mode == "open")
    asked = {"mode": mode, "offered": offered, "arrivals": "poisson", "seed": 0}
    found = {"generator_cpu": 0.0, "generator_bound": False, "mean_batch": None}
    return LevelRecord(**vars(stats), **asked, **found, time_split=None, holds_slo=None)


@pytest.mark.parametrize(
    ("arrivals", "asked_s", "lasts_s"),
    [
        ("poisson", None, 10.0),
        ("poisson", 20.0, 20.0),
        ("ramp:1-2", None, 10.0),
        ("steps:5x20,6x5", None, 25.0),
        ("steps:5x20,6x5", 30.0, 25.0),
        ("steps:5x20,6x5", 3.0, 3.0),
    ],
)
def test_length(arrivals, asked_s, lasts_s):
    """A level without --duration-s takes 10 s, or as long as its arrivals; never longer."""
    rate = 5.0 if arrivals == "poisson" else None
    assert _level(rate, arrivals, None, asked_s)["duration_s"] == lasts_s


def test_length_of_a_closed_loop():
    """So does a closed loop."""
    assert _level(None, None, 4, None)["duration_s"] == 10.0


def test_length_of_a_trace(tmp_path):
    """A trace is sent to its end unless it is told otherwise."""
    path = trace(tmp_path, 0.5, 59.9995)
    assert _level(None, path, None, None)["duration_s"] == pytest.approx(60.0)
    assert _level(None, path, None, 10.0)["duration_s"] == 10.0


def test_trace_of_many_days(tmp_path):
    """Times that are no seconds of a run, such as those of a clock, are refused."""
    path = trace(tmp_path, 1.7e9)
    with pytest.raises(
        InputError, match=r"trace.jsonl lasts for more than a day; give --duration-s"
    ):
        _level(None, path, None, None)


def test_help_has_the_trace(tritonkit):
    """The help says how a trace is written."""
    said = " ".join(tritonkit("load", "--help").stdout.split())
    assert '{"t_s": SECONDS} or {"t_s": SECONDS, "payload": INDEX}' in said


@pytest.mark.parametrize(
    ("mode", "offered", "said"),
    [
        ("open", 20000.0, "20,000 requests/s, poisson"),
        ("open", 694.444, "694 requests/s, poisson"),
        ("open", 0.5, "0.50 requests/s, poisson"),
        ("closed", 1, "1 user"),
        ("closed", 4000, "4,000 users"),
    ],
)
def test_offered(mode, offered, said):
    """What was offered is a number for people."""
    assert _offered(record(mode, offered)) == said


@pytest.mark.parametrize(
    ("ms", "said"),
    [
        (None, "-"),
        (0.0, "0"),
        (1e-7, "0.000"),
        (0.0043, "0.0043"),
        (3.14159, "3.14"),
        (99.96, "100"),
        (1234.5, "1,234"),
        (2e7, "20,000,000"),
    ],
)
def test_milliseconds(ms, said):
    """Milliseconds have three digits or more, and never a power of ten."""
    assert _ms(ms) == said


def test_no_powers_of_ten():
    """Whatever the number, none is written with a power of ten."""
    for power in range(-9, 10):
        for digits in (1.0, 1.2345, 9.999):
            text = _ms(digits * 10.0**power) + _offered(record("open", digits * 10.0**power))
            assert not re.search(r"\de[+-]?\d", text), text
