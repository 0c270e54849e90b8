"""Arrivals: as many as the pattern says, spaced as they should be, the same for the same seed."""

import json
import math
import statistics
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonkit.errors import InputError
from tritonkit.load.arrivals import (
    MOST_RPS,
    POISSON,
    Arrival,
    Arrivals,
    Bursts,
    Constant,
    Poisson,
    Ramp,
    Steps,
    Trace,
    parse_arrivals,
    require_payloads,
    share,
)

TRACE = Trace("t.jsonl", tuple(Arrival(s, i if i % 2 else None) for i, s in enumerate([0, 1, 1])))

patterns = st.one_of(
    st.just(POISSON),
    st.just(Constant()),
    st.builds(Bursts, st.floats(0.001, 3), st.floats(0, 3)),
    st.builds(
        Steps,
        st.lists(st.tuples(st.floats(0, 60), st.floats(0.001, 3)), min_size=1, max_size=4)
        .filter(lambda steps: any(rate for rate, _ in steps))
        .map(tuple),
    ),
    st.builds(Ramp, st.floats(0, 60), st.floats(0.001, 60)),
)
any_pattern = patterns | st.just(TRACE)


def times(pattern: Arrivals, rate_rps: float, duration_s: float, seed: int = 0) -> list[float]:
    """The starts alone."""
    return [arrival.start_s for arrival in pattern.starts(rate_rps, duration_s, seed)]


def gaps(starts: list[float]) -> list[float]:
    """From 0 to the first start, and from each start to the next."""
    return [b - a for a, b in pairwise([0.0, *starts])]


def within(starts: list[float], begin_s: float, end_s: float) -> int:
    """How many starts lie between the two."""
    return sum(begin_s <= s < end_s for s in starts)


def deviations(found: int, expected: float) -> float:
    """How far a Poisson count is from what is expected, in standard deviations."""
    return abs(found - expected) / math.sqrt(expected)


def test_constant_spacing():
    """A constant rate starts at once and then evenly."""
    assert times(Constant(), 4, 2) == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75]


@pytest.mark.parametrize(("rate", "duration"), [(100, 3), (1, 5), (0.5, 8), (1000, 0.1)])
def test_constant_rate(rate, duration):
    """A constant rate has rate × duration starts, all within the duration."""
    starts = times(Constant(), rate, duration)
    assert len(starts) == rate * duration
    assert max(starts) < duration


def test_poisson_rate():
    """Random arrivals come at the rate: 20 000 expected, ± 3 standard deviations."""
    assert deviations(len(times(POISSON, 2000, 10, seed=1)), 20_000) < 3


def test_poisson_gaps_are_exponential():
    """The gaps have the mean and the deviation of an exponential, both 1/rate, and its median."""
    found = gaps(times(POISSON, 50, 1000, seed=7))
    assert statistics.mean(found) == pytest.approx(1 / 50, rel=0.02)
    assert statistics.stdev(found) == pytest.approx(1 / 50, rel=0.02)
    assert statistics.median(found) == pytest.approx(0.6931 / 50, rel=0.02)


def test_poisson_gaps_are_independent():
    """A gap says nothing about the next one: their correlation is about 0."""
    found = gaps(times(POISSON, 50, 1000, seed=7))
    assert abs(statistics.correlation(found[:-1], found[1:])) < 0.02


def test_poisson_starts_at_random():
    """The first arrival, too, comes after a random gap."""
    firsts = [next(POISSON.starts(10, 100, seed)).start_s for seed in range(2000)]
    assert statistics.mean(firsts) == pytest.approx(0.1, rel=0.1)


def test_a_rate_too_low_for_the_run():
    """A rate that is too low for the duration may start nothing."""
    assert times(POISSON, 1e-9, 1) == []


def test_bursts_have_the_mean_rate():
    """Over whole cycles bursts have the rate that was asked for."""
    assert deviations(len(times(Bursts(0.3, 0.7), 100, 200, seed=2)), 20_000) < 3


def test_bursts_leave_the_off_phases_empty():
    """Everything falls into the on phases, the first of which is at 0."""
    starts = times(Bursts(0.5, 1.5), 100, 60, seed=3)
    assert starts and all(s % 2 < 0.5 for s in starts)


def test_bursts_are_even_inside():
    """Both halves of the on phases get equally many."""
    starts = times(Bursts(0.5, 1.5), 100, 200, seed=4)
    assert deviations(sum(s % 2 < 0.25 for s in starts), 10_000) < 3


def test_bursts_that_never_pause_are_poisson():
    """Without an off phase the gaps are a Poisson process's."""
    bursts, plain = (times(pattern, 50, 20, seed=5) for pattern in (Bursts(0.1, 0), POISSON))
    assert bursts == pytest.approx(plain)


def test_steps_have_their_rates():
    """Each step has its own rate, for as long as it lasts, and one of rate 0 has nothing."""
    starts = times(parse_arrivals("steps:500x4,0x2,2000x2,100x10"), 0, 100, seed=6)
    assert deviations(within(starts, 0, 4), 2000) < 3
    assert within(starts, 4, 6) == 0
    assert deviations(within(starts, 6, 8), 4000) < 3
    assert deviations(within(starts, 8, 18), 1000) < 3
    assert within(starts, 18, 100) == 0


def test_steps_that_begin_with_a_pause():
    """A pause at the beginning moves all that follows."""
    starts = times(Steps(((0, 5), (100, 5))), 0, math.inf, seed=7)
    assert 5 < starts[0] < 6 and starts[-1] < 10


@pytest.mark.parametrize("ramp", [Ramp(0, 1000), Ramp(1000, 0), Ramp(200, 800), Ramp(500, 500)])
def test_ramps_change_evenly(ramp):
    """Every fifth of a ramp has the count that the integral of its rate gives."""
    starts = times(ramp, 0, 50, seed=8)
    for i in range(5):
        middle = ramp.from_rps + (ramp.to_rps - ramp.from_rps) * (i + 0.5) / 5
        assert deviations(within(starts, i * 10, (i + 1) * 10), middle * 10) < 3.5


def test_a_changing_rate_is_poisson():
    """Stretched by the ramp's own rate its gaps are exponential with mean 1, and independent."""
    ramp = Ramp(0, 400)
    stretched = gaps([200 * s * s / 100 for s in times(ramp, 0, 100, seed=9)])
    assert statistics.mean(stretched) == pytest.approx(1, rel=0.03)
    assert statistics.stdev(stretched) == pytest.approx(1, rel=0.03)
    assert abs(statistics.correlation(stretched[:-1], stretched[1:])) < 0.03


def test_a_ramp_needs_an_end():
    """A ramp over an endless run is refused."""
    with pytest.raises(InputError, match=r"^ramp:1-2: a ramp needs an end; say how long"):
        Ramp(1, 2).starts(0, math.inf, 0)


@given(any_pattern, st.floats(0.5, 60), st.floats(1.01, 6), st.integers(0, 99))
def test_ascending_within_the_duration(pattern, rate, duration, seed):
    """Whatever the pattern, its starts ascend from 0 on, and none is at the end or after it."""
    starts = times(pattern, rate, duration, seed)
    assert starts == sorted(starts)
    assert all(0 <= s < duration for s in starts)


@given(any_pattern, st.integers(0, 99))
def test_reproducible(pattern, seed):
    """The same seed gives the same arrivals."""
    first, again = (list(pattern.starts(20, 3, seed)) for _ in range(2))
    assert first == again


@pytest.mark.parametrize("pattern", [POISSON, Bursts(), Steps(((100, 5),)), Ramp(50, 100)])
def test_another_seed(pattern):
    """Another seed gives other arrivals."""
    assert times(pattern, 100, 5, seed=1) != times(pattern, 100, 5, seed=2)


@pytest.mark.parametrize("pattern", [POISSON, Constant(), Bursts(), Steps(((100, 5),)), TRACE])
def test_a_longer_run_begins_alike(pattern):
    """A longer run of a seed, even an endless one, begins as a shorter one does."""
    short = list(pattern.starts(100, 2, seed=4))
    assert short and list(islice(pattern.starts(100, math.inf, seed=4), len(short))) == short


@pytest.mark.parametrize("pattern", [POISSON, Constant(), Bursts()])
def test_endless(pattern):
    """An endless run is drawn as it is taken."""
    last = next(islice(pattern.starts(100, math.inf, seed=0), 10_000, None))
    assert last.start_s == pytest.approx(100, rel=0.05)


@given(patterns, st.floats(1, 40), st.floats(0.5, 9))
def test_mean_rate(pattern, rate, duration):
    """What a pattern says it offers is what it sends, in the mean of many seeds."""
    seeds = 60
    found = sum(len(times(pattern, rate, duration, seed)) for seed in range(seeds))
    expected = pattern.mean_rps(rate, duration) * duration * seeds
    assert abs(found - expected) < 4.5 * math.sqrt(expected) + seeds  # constant: one more each


@pytest.mark.parametrize(
    ("pattern", "duration", "mean"),
    [
        (Bursts(1, 1), 3, 10 * 4 / 3),
        (Bursts(1, 1), 2, 10),
        (Bursts(1, 1), math.inf, 10),
        (Steps(((30, 1), (10, 1))), 1, 30),
        (Steps(((30, 1), (10, 1))), 4, 10),
        (Ramp(0, 40), 3, 20),
        (TRACE, 1, 1),
        (TRACE, 6, 0.5),
    ],
)
def test_mean_rate_of_a_run(pattern, duration, mean):
    """The mean rate is of the run itself, whatever part of the pattern that is."""
    assert pattern.mean_rps(10, duration) == pytest.approx(mean)


@pytest.mark.parametrize(
    ("pattern", "length_s"), [(POISSON, math.inf), (Steps(((1, 2), (0, 3))), 5), (TRACE, 1.001)]
)
def test_length(pattern, length_s):
    """A pattern that ends by itself says when."""
    assert pattern.length_s == length_s


@pytest.mark.parametrize("rate", [0, -1, 1e-10, MOST_RPS * 1.01, math.inf, math.nan])
@pytest.mark.parametrize("pattern", [POISSON, Constant(), Bursts()])
def test_rates_that_are_refused(pattern, rate):
    """A rate at which nothing or endlessly much would be sent is refused before anything is."""
    with pytest.raises(InputError, match=r"the rate must be above 0, and at most 1000000$"):
        pattern.starts(rate, 1, 0)


@given(any_pattern, st.integers(1, 7), st.integers(0, 9))
def test_shares_make_up_the_whole(pattern, workers, seed):
    """n workers together send each arrival of the one stream once, in ascending order each."""
    parts = [list(share(pattern.starts(20, 3, seed), i, workers)) for i in range(workers)]
    whole = list(pattern.starts(20, 3, seed))
    assert sorted(a.start_s for part in parts for a in part) == [a.start_s for a in whole]
    assert all(part == sorted(part, key=lambda a: a.start_s) for part in parts)
    assert {len(part) - len(whole) // workers for part in parts} <= {0, 1}


@given(any_pattern, st.integers(1, 7))
def test_shares_keep_the_payloads(pattern, workers):
    """Among n workers each arrival has the payload that one worker would send with it."""
    parts = [share(pattern.starts(20, 3, 1), i, workers) for i in range(workers)]
    found = sorted((a.start_s, a.payload) for part in parts for a in part)
    whole = enumerate(pattern.starts(20, 3, 1))
    expected = sorted((a.start_s, i if a.payload is None else a.payload) for i, a in whole)
    assert found == expected


def test_a_share_of_an_endless_stream():
    """A worker's part of an endless run is drawn as it is taken."""
    part = share(Constant().starts(10, math.inf, 0), 1, 3)
    assert list(islice(part, 3)) == [Arrival(0.1, 1), Arrival(0.4, 4), Arrival(0.7, 7)]


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("poisson", Poisson()),
        ("constant", Constant()),
        ("bursts", Bursts(0.2, 0.8)),
        ("bursts:1,2.5", Bursts(1, 2.5)),
        ("steps:100x10", Steps(((100, 10),))),
        ("steps:100x10,0x0.5,2e2x1", Steps(((100, 10), (0, 0.5), (200, 1)))),
        ("ramp:0-200", Ramp(0, 200)),
        ("ramp:1e-2-1e+2", Ramp(0.01, 100)),
    ],
)
def test_parsed(text, pattern):
    """A pattern is read as it is written."""
    assert parse_arrivals(text) == pattern


@given(patterns)
def test_names_are_what_is_written(pattern):
    """A pattern's name, read again, is the same pattern."""
    assert parse_arrivals(pattern.name) == pattern


def test_own_rates():
    """Steps, ramps and traces bring their rates; the others are told one."""
    assert {p.own_rate for p in (Steps(((1, 1),)), Ramp(1, 2), TRACE)} == {True}
    assert {p.own_rate for p in (POISSON, Constant(), Bursts())} == {False}


def test_stationary():
    """Poisson and constant arrivals are the same all through; the others change as they go."""
    changing = (Bursts(), Steps(((1, 1),)), Ramp(1, 2), TRACE)
    assert {p.stationary for p in (POISSON, Constant())} == {True}
    assert {p.stationary for p in changing} == {False}


@pytest.mark.parametrize(
    "text",
    [
        *("", "Poisson", "poisson:3", "bursts:", "bursts:1", "bursts:1,2,3", "bursts:nan,1"),
        *("steps:", "steps:1", "steps:1x2,", "steps:-1x2", "steps:infx1", "steps:1x.5"),
        *("ramp:1", "ramp:1-", "ramp:-1-2", "ramp:1-2-3", "trace.json", "a\nb", "steps:1x2 "),
    ],
)
def test_no_pattern(text):
    """Anything else is refused in one line that says what can be given."""
    with pytest.raises(
        InputError, match=r"is no pattern of arrivals; give poisson, const"
    ) as error:
        parse_arrivals(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bursts:0,1", "ON_S must be 0.001 or more"),
        ("bursts:1e999,1", "ON_S must be 0.001 or more"),
        ("steps:1x0", "lasts more than 0 seconds"),
        ("steps:1e7x1", "a rate from 0 to 1000000"),
        ("steps:1x1e999", "lasts more than 0 seconds"),
        ("steps:0x1,0x2", "no step has a rate above 0"),
        ("ramp:0-0", "one of its rates must be above 0"),
        ("ramp:1-1e7", "from 0 to 1000000"),
    ],
)
def test_patterns_that_cannot_be(text, words):
    """A pattern that would send nothing, or without end, is refused by its name."""
    with pytest.raises(InputError, match=f"^{text.split(':')[0]}:.*: .*{words}"):
        parse_arrivals(text)


@pytest.fixture
def trace(tmp_path: Path) -> Callable[[str | bytes], Path]:
    """`trace(lines)` → the path of a trace file that has them."""

    def write(content: str | bytes) -> Path:
        path = tmp_path / "requests.jsonl"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_trace(trace):
    """A trace is sent at its times with its payloads; blank lines do not count."""
    path = trace('{"t_s": 0.5, "payload": 7}\n\n{"t_s": 2}\r\n{"t_s": 2.25, "payload": null}')
    pattern = parse_arrivals(str(path))
    assert list(pattern.starts(0, 10, 0)) == [Arrival(0.5, 7), Arrival(2), Arrival(2.25)]
    assert pattern.name == str(path)


def test_trace_out_of_order(trace):
    """Lines are sent in order of time, those of the same time in the order of the file."""
    lines = [{"t_s": 3, "payload": 0}, {"t_s": 1, "payload": 1}, {"t_s": 1, "payload": 2}]
    pattern = parse_arrivals(str(trace("\n".join(map(json.dumps, lines)))))
    assert list(pattern.starts(0, 10, 0)) == [Arrival(1, 1), Arrival(1, 2), Arrival(3, 0)]


def test_trace_is_cut(trace):
    """A run that is shorter than its trace sends what lies within it."""
    pattern = parse_arrivals(str(trace('{"t_s": 1}\n{"t_s": 2}')))
    assert times(pattern, 0, 2) == [1]


@given(st.floats(0, 1e6))
def test_the_last_of_a_trace(last_s):
    """A run as long as its trace sends all of it, counted in nanoseconds too."""
    pattern = Trace("t.jsonl", (Arrival(0), Arrival(last_s)))
    assert len(times(pattern, 0, pattern.length_s)) == 2
    assert int(last_s * 1e9) < int(pattern.length_s * 1e9)


def test_trace_after_the_end(trace):
    """A trace of which nothing would be sent, as of times of day, is refused."""
    pattern = parse_arrivals(str(trace('{"t_s": 1764000000.5}')))
    with pytest.raises(InputError, match=r"first arrival is at 1764000000\.5 s, and the run ends"):
        pattern.starts(0, 9, 0)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("hello", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"t_s": 1' + "0" * 9999 + "}", "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        ("3", "has no t_s"),
        ("{}", "has no t_s"),
        ('{"payload": 1}', "has no t_s"),
        ('{"t_s": 1, "paylod": 1}', "has 'paylod', which means nothing"),
        ('{"t_s": 1, "\\ud800\\n": 1}', r"has '\\ud800\\n'"),
        ('{"t_s": -0.5}', "t_s must be a number of seconds from 0 on"),
        ('{"t_s": NaN}', "t_s must be"),
        ('{"t_s": Infinity}', "t_s must be"),
        ('{"t_s": 1e999}', "t_s must be"),
        ('{"t_s": 1' + "0" * 999 + "}", "t_s must be"),
        ('{"t_s": true}', "t_s must be"),
        ('{"t_s": "1"}', "t_s must be"),
        ('{"t_s": null}', "t_s must be"),
        ('{"t_s": 1, "payload": -1}', "payload must be a whole number from 0 on"),
        ('{"t_s": 1, "payload": true}', "payload must be"),
        ('{"t_s": 1, "payload": 1.0}', "payload must be"),
        ('{"t_s": 1, "payload": "a"}', "payload must be"),
    ],
)
def test_trace_lines_that_are_refused(trace, line, words):
    """A line that is no arrival is refused in one line with the file, its number and the remedy."""
    line = line.encode() if isinstance(line, str) else line
    path = trace(b'{"t_s": 0}\n\n' + line + b"\n")
    with pytest.raises(
        InputError, match=rf"requests\.jsonl line 3.*{words}.*; write one "
    ) as error:
        parse_arrivals(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_empty_trace(trace, content):
    """A trace without arrivals is refused."""
    with pytest.raises(InputError, match=r"requests\.jsonl has no arrivals; write one arrival a"):
        parse_arrivals(str(trace(content)))


def test_no_trace_file(tmp_path):
    """A trace that is missing, or a folder, is refused by its name."""
    (tmp_path / "folder.jsonl").mkdir()
    for name in ("missing.jsonl", "folder.jsonl", "nul\0.jsonl"):
        with pytest.raises(InputError, match=r"^no trace file .*; write one arrival a line"):
            parse_arrivals(str(tmp_path / name))


def test_unreadable_trace(tmp_path):
    """A trace that the system refuses is refused with its reason."""
    with pytest.raises(InputError, match=r"cannot be read: File name too long$"):
        parse_arrivals(str(tmp_path / ("x" * 300 + ".jsonl")))


def test_payloads_of_a_trace():
    """A trace may name each of the requests, or none; other patterns name none."""
    require_payloads(Trace("t.jsonl", (Arrival(0.0, 0), Arrival(0.1), Arrival(0.2, 2))), 3)
    require_payloads(POISSON, 1)


@pytest.mark.parametrize(("payload", "count"), [(3, 3), (10**30, 3), (1, 1)])
def test_payload_beyond(payload, count):
    """A payload that the run does not have is refused, with the numbers that there are."""
    trace = Trace("t.jsonl", (Arrival(0.0), Arrival(0.25, payload)))
    with pytest.raises(InputError) as caught:
        require_payloads(trace, count)
    assert str(caught.value) == (
        f"t.jsonl: the arrival at 0.25 s has payload {payload}, and the {count} requests are "
        f"numbered from 0 to {count - 1}; send more, or name others in the trace"
    )


def test_rate_for_people():
    """A rate that is refused is written without a power of ten."""
    with pytest.raises(InputError, match=r"^20000000 requests per second: the rate must be above"):
        POISSON.starts(2e7, 1.0, 0)
