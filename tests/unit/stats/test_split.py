"""Where the time goes: the client's clock and the server's counters add up, or a remark says so."""

from dataclasses import asdict, replace

import pytest

from tritonkit.samples import NOT_SENT, Sample
from tritonkit.stats.scrape import ServerCounters
from tritonkit.stats.split import TimeSplit, split

MS = 1_000_000
SERVER_PARTS = ("queue_ms", "input_ms", "compute_ms", "output_ms")
PARTS = ("client_ms", "connection_ms", "wire_ms", *SERVER_PARTS)


def sample(late_ms: float, took_ms: float, error: str = "") -> Sample:
    """A request that was sent late_ms late and answered took_ms after that."""
    return Sample(0, int(late_ms * MS), int((late_ms + took_ms) * MS), 0, error)


LEVEL = [sample(2, 18)] * 50 + [sample(0, 20)] * 50
"""100 answers: 20 ms each of which 1 ms, in the mean, is the client's."""

COUNTED = ServerCounters(
    requests=100,
    inferences=100,
    executions=25,
    success_ns=1500 * MS,
    queue_ns=400 * MS,
    input_ns=100 * MS,
    compute_ns=900 * MS,
    output_ns=100 * MS,
)
"""What a server counts of them: 15 ms each, all of it in its parts."""


def found(samples=LEVEL, **changes) -> TimeSplit:
    """The split of the level, if the server had counted otherwise."""
    result = split(samples, replace(COUNTED, **changes))
    assert result is not None
    return result


def test_parts():
    """Each part is the mean of an answered request, in milliseconds."""
    assert found() == TimeSplit(
        client_ms=1,
        connection_ms=0,
        wire_ms=4,
        queue_ms=4,
        input_ms=1,
        compute_ms=9,
        output_ms=1,
        total_ms=20,
        adds_up=True,
        remark="",
    )


def test_sum():
    """The parts make up the client's latency."""
    parts = asdict(found())
    assert sum(parts[part] for part in PARTS) == pytest.approx(parts["total_ms"])


def put_off(samples, at_ms):
    """The same, but at_ms after they were due all connections were busy."""
    return [s._replace(put_off_ns=s.intended_ns + int(at_ms * MS)) for s in samples]


def test_wait_for_a_connection():
    """It is a part of its own, and not the client's doing; the others are as they were."""
    late = [sample(12, 18)] * 50
    assert found([*put_off(late, 2), *LEVEL[50:]]) == replace(found(), connection_ms=5, total_ms=25)


def test_sum_with_a_wait_for_a_connection():
    """The parts make up the client's latency with it, too."""
    parts = asdict(found(put_off([sample(12, 18)] * 100, 0.5)))
    assert (parts["client_ms"], parts["connection_ms"]) == (0.5, 11.5)
    assert sum(parts[part] for part in PARTS) == pytest.approx(parts["total_ms"])


def test_failed_requests_wait_for_no_connection():
    """The wait of a request that failed, or was never sent, counts for nothing either."""
    others = put_off([sample(800, 900, "timeout"), sample(500, 0, NOT_SENT)], 0)
    assert found([*LEVEL, *others], failures=1) == found()


def test_failed_requests_have_no_part():
    """A request that failed, or was never sent, counts for nothing."""
    others = [sample(0, 900, "timeout"), sample(500, 0, NOT_SENT)]
    assert found([*LEVEL, *others], failures=1) == found()


@pytest.mark.parametrize("samples", [[], [sample(0, 5, "refused")]])
def test_nothing_answered(samples):
    """If nothing was answered there is no split."""
    assert split(samples, COUNTED) is None


@pytest.mark.parametrize(
    "counted",
    [
        ServerCounters(),
        ServerCounters(requests=100),
        ServerCounters().since(COUNTED),  # started anew between the two looks
    ],
)
def test_no_times(counted):
    """A server that counts no times has no split."""
    assert split(LEVEL, counted) is None


def test_others_use_the_server():
    """A server that counts more requests than the client sent is told, with both numbers."""
    times = {f"{part}_ns": 2 * getattr(COUNTED, f"{part}_ns") for part in ("success", "queue")}
    split_ = found(requests=200, **times)
    assert "counts 200 requests" in split_.remark
    assert "sent 100" in split_.remark


def test_arrivals_that_were_never_sent():
    """What was never sent is not among what the server may have counted."""
    never = [sample(500, 0, NOT_SENT)] * 100
    assert "counts 200 requests" in found([*LEVEL, *never], requests=200).remark


def test_others_that_fail():
    """Requests of others that fail are others too."""
    assert "counts 200 requests" in found(failures=100).remark


def test_answers_that_came_too_late():
    """What the server answered and the client no longer took is told as that, not as others'."""
    late = [sample(0, 900, "timeout")] * 30
    remark = found([*LEVEL, *late], requests=130, success_ns=1950 * MS).remark
    assert "answered 130" in remark
    assert "took 100" in remark


def test_answers_from_elsewhere():
    """A server that counts fewer requests than the client has answers is told."""
    assert "counts 50 of this client's 100" in found(requests=50).remark


@pytest.mark.parametrize("requests", [95, 105])
def test_a_few_requests_more_or_less(requests):
    """A request of a health check, or one that was under way, is no remark."""
    share = requests / 100
    times = ("success_ns", "queue_ns", "input_ns", "compute_ns", "output_ns")
    scaled = {name: int(getattr(COUNTED, name) * share) for name in times}
    assert found(requests=requests, **scaled).remark == ""


def test_negative_wire():
    """A server that counts more than the client waited does not add up, with both numbers."""
    split_ = found(success_ns=2500 * MS, compute_ns=1900 * MS)
    assert not split_.adds_up
    assert "counts 25 ms" in split_.remark
    assert "waited only 19 ms" in split_.remark


def test_wire_a_little_negative():
    """Less than a tenth of the latency is a matter of clocks."""
    split_ = found(success_ns=2000 * MS, compute_ns=1400 * MS)
    assert (split_.wire_ms, split_.adds_up, split_.remark) == (-1, True, "")


def test_time_in_no_part():
    """Time that the server counts and gives to no part does not add up, with the numbers."""
    split_ = found(compute_ns=600 * MS)
    assert not split_.adds_up
    assert "make up 12 ms of the 15 ms" in split_.remark
    assert "3 ms are in none" in split_.remark


def test_a_little_time_in_no_part():
    """Less than a tenth of the latency between a server's steps is nothing to remark on."""
    split_ = found(compute_ns=720 * MS)
    assert (split_.adds_up, split_.remark) == (True, "")


def test_parts_above_the_whole():
    """Parts that are more than the server's own total do not add up."""
    split_ = found(queue_ns=900 * MS)
    assert not split_.adds_up
    assert "20 ms, more than the 15 ms" in split_.remark


def test_time_in_the_cache():
    """The time of looking into the response cache is in no part; the remark says how many hit."""
    hits = found(queue_ns=0, input_ns=0, compute_ns=0, output_ns=0, cache_hits=100)
    assert "100% of the answers came from its cache" in hits.remark
    assert "cache" not in found(compute_ns=600 * MS).remark


def test_others_are_told_first():
    """Where others use the server, that is the cause of all that does not add up."""
    split_ = found(requests=200, success_ns=9000 * MS)
    assert not split_.adds_up
    assert "others use it too" in split_.remark
