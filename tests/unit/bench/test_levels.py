"""Which levels an arm is measured at, and what is recorded of each."""

from types import SimpleNamespace

import pytest

from tritonkit.bench.levels import generator_bound, plan_levels, record
from tritonkit.samples import Sample


@pytest.fixture
def tried(level):
    """The levels that are asked for, and all records, of an arm that holds up to so many users.

    It answers 100 requests/s per user up to `most` users and holds every open level up to
    `most_rps`.
    """

    def run(most, *, rate_rps=None, most_rps=1e9):
        plan, asked, answer = plan_levels(rate_rps), [], None
        while True:
            try:
                mode, offered = plan.send(answer)
            except StopIteration as end:
                return asked, end.value
            asked.append((mode, offered))
            if mode == "closed":
                rps = 100 * min(offered, most or 0.5)
                answer = level("closed", offered, rps=rps, holds=offered <= most)
            else:
                answer = level("open", offered, rps=offered, holds=offered <= most_rps)

    return run


def test_all_hold(tried):
    """If every closed level holds, one of twice the users is tried; open levels follow."""
    asked, _ = tried(1000)
    assert asked == [
        *(("closed", users) for users in (1, 4, 16, 64, 128)),
        *(("open", rate) for rate in (7680, 10900)),
        ("closed", 128),
    ]


def test_third_fails(tried):
    """After the first level that fails, one between it and the last good one is tried."""
    asked, _ = tried(4)
    assert asked[:5] == [("closed", 1), ("closed", 4), ("closed", 16), ("closed", 8), ("open", 240)]


def test_between_holds(tried):
    """If the one between holds, the open levels are shares of what it sustained."""
    asked, _ = tried(8)
    assert asked[3:6] == [("closed", 8), ("open", 480), ("open", 680)]
    assert asked[-1] == ("closed", 8)


def test_first_fails(tried):
    """If one user is too many, no more are tried, and open levels are shares of what it got."""
    asked, _ = tried(0, most_rps=0)
    assert asked == [("closed", 1), ("open", 30), ("open", 42.5), ("closed", 1)]


def test_open_level_decides(tried):
    """If only an open level holds, it is the one that is measured again."""
    asked, _ = tried(0, most_rps=40)
    assert asked[-1] == ("open", 30)


def test_rate(tried):
    """A rate that was asked for is an open level too, and the one that is measured again."""
    asked, _ = tried(4, rate_rps=77)
    assert asked[4:] == [("open", 240), ("open", 340), ("open", 77), ("open", 77)]


def test_nothing_works(level):
    """A dead server is tried with one user, and at the rate if one was asked for."""
    for rate, expected in ((None, 2), (50, 3)):
        plan, answer, asked = plan_levels(rate), None, 0
        with pytest.raises(StopIteration):
            while True:
                mode, offered = plan.send(answer)
                asked += 1
                answer = level(mode, offered, rps=0, p99=None, holds=False)
        assert asked == expected


def test_order(tried):
    """The records come by load, closed before open, and the repeat is last and marked."""
    asked, records = tried(4, rate_rps=77)
    assert [(r.mode, r.offered) for r in records[:-1]] == [
        *(("closed", users) for users in (1, 4, 8, 16)),
        *(("open", rate) for rate in (77, 240, 340)),
    ]
    assert (records[-1].mode, records[-1].offered) == asked[-1]
    assert [r.repeat for r in records] == [False] * 7 + [True]


def recorded(mode, samples, slo=50.0, cpu=0.2):
    """The record of a level of one second after half a second of warm-up."""
    level = SimpleNamespace(mode=mode, offered=10, duration_s=1.0, warmup_s=0.5)
    run = SimpleNamespace(samples=samples, generator_cpu=cpu)
    return record(level, run, 2.5, slo, "samples/s")


MS = 1_000_000


def test_record():
    """A record has the level, the numbers of its samples, and what was said of the server."""
    samples = [Sample(t * MS, t * MS, (t + 10) * MS, 0, "") for t in range(0, 1500, 100)]
    made = recorded("open", samples)
    assert (made.mode, made.offered, made.mean_batch, made.samples) == (
        "open",
        10,
        2.5,
        "samples/s",
    )
    assert (made.requests, made.achieved_rps, made.p99_ms, made.errors) == (10, 10, 10, 0)
    assert made.holds_slo
    assert not made.repeat
    assert not made.generator_bound


def test_record_of_a_broken_budget():
    """A level whose p99 is above the budget does not hold it."""
    samples = [Sample(600 * MS, 600 * MS, 651 * MS, 0, "")]
    assert not recorded("open", samples).holds_slo
    assert recorded("open", samples, slo=51).holds_slo


def test_record_of_errors():
    """A level with one failed request does not hold the budget."""
    good = [Sample(t * MS, t * MS, (t + 10) * MS, 0, "") for t in range(600, 1400, 10)]
    made = recorded("closed", [*good, Sample(700 * MS, 700 * MS, 701 * MS, 0, "http_503")])
    assert (made.errors, made.error_kinds) == (1, {"http_503": 1})
    assert not made.holds_slo


@pytest.mark.parametrize(
    ("lateness", "p99", "cpu", "bound"),
    [
        (None, 10, 0.5, False),
        (0.9, 10, 0.5, False),
        (1.1, 10, 0.5, True),
        (4.0, 100, 0.5, False),
        (6.0, 100, 0.5, True),
        (None, 10, 0.95, True),
        (None, None, 0.5, False),
    ],
)
def test_generator_bound(lateness, p99, cpu, bound):
    """The generator is in question if it used a core, or was late by 1 ms and 5 % of the p99."""
    assert generator_bound(lateness, p99, cpu) is bound
