"""Whose turn it is among several servers, and who rests."""

import pytest

from tritonkit.client.events import ServerBack, ServerRested
from tritonkit.client.pool import LONGEST_REST_S, REST_S, STRIKES, Pool
from tritonkit.errors import request_error


class Named:
    """What a pool needs of a transport."""

    def __init__(self, address: str):
        self.address = address


class World:
    """A pool of a, b and c, a clock that is set by hand, and the events."""

    def __init__(self, names: str = "abc"):
        self.now_s = 0.0
        self.events: list[object] = []
        self.pool = Pool([Named(n) for n in names], self.events.append, lambda: self.now_s)
        self.members = dict(zip(names, self.pool.members, strict=True))

    def turns(self, count: int) -> str:
        return "".join(self.pool.pick().transport.address for _ in range(count))

    def fail(self, name: str, kind: str = "closed") -> None:
        self.pool.report(self.members[name], request_error(kind, "no"))


@pytest.fixture
def world() -> World:
    return World()


def test_requests_go_round(world):
    """Each server gets every third request."""
    assert world.turns(7) == "abcabca"


@pytest.mark.parametrize("kind", ["closed", "refused"])
def test_a_lost_server_rests_at_once(world, kind):
    """One failed connection is enough."""
    world.fail("b", kind)
    assert set(world.turns(20)) == {"a", "c"}


@pytest.mark.parametrize("kind", ["unavailable", "timeout"])
def test_a_silent_server_rests_after_some_strikes(world, kind):
    """A full queue or a slow answer may be bad luck; three in a row are not."""
    for _ in range(STRIKES - 1):
        world.fail("b", kind)
    assert "b" in world.turns(6)
    world.fail("b", kind)
    assert "b" not in world.turns(6)


def test_an_answer_wipes_the_strikes_out(world):
    """Only failures in a row count."""
    for _ in range(STRIKES - 1):
        world.fail("b", "timeout")
    world.pool.report(world.members["b"], None)
    world.fail("b", "timeout")
    assert "b" in world.turns(6)


@pytest.mark.parametrize("kind", ["invalid", "not_found", "failed"])
def test_a_refusal_is_a_sign_of_life(world, kind):
    """A server that refuses a request is in good health."""
    world.fail("b", kind)
    assert "b" in world.turns(3)


def test_after_its_rest_a_server_gets_one_request_on_trial(world):
    """The others must not wait for what may still be dead."""
    world.fail("b")
    world.now_s += REST_S
    assert world.turns(6).count("b") == 1
    assert world.members["b"].on_trial


def test_a_server_that_passes_is_back(world):
    """It then takes its turn as before, and the hooks are told."""
    world.fail("b")
    world.now_s += REST_S
    world.turns(6)
    world.pool.report(world.members["b"], None)
    assert world.turns(6).count("b") == 2
    assert world.events == [ServerRested("b", REST_S, "closed"), ServerBack("b")]


def test_rests_get_longer_up_to_a_bound(world):
    """Twice as long with every failure."""
    for _ in range(12):
        world.fail("b")
        world.now_s = world.members["b"].rests_until_s
    lengths = [event.for_s for event in world.events]
    assert lengths[:3] == [REST_S, 2 * REST_S, 4 * REST_S]
    assert max(lengths) == LONGEST_REST_S


def test_many_requests_that_fail_together_are_one_failure(world):
    """A server that dies under load fails all that it has at once."""
    for _ in range(50):
        world.fail("b")
    assert len(world.events) == 1


def test_if_all_rest_the_one_that_rested_longest_is_tried(world):
    """An attempt beats a refusal."""
    for name in "bca":
        world.fail(name)
        world.now_s += REST_S / 100
    assert world.pool.pick().transport.address == "b"


def test_another_try_goes_elsewhere(world):
    """Whoever has failed a request does not get it again while there is another."""
    first = world.pool.pick()
    second = world.pool.pick([first])
    third = world.pool.pick([first, second])
    assert len({first.transport, second.transport, third.transport}) == 3


def test_a_sequence_stays_with_its_server(world):
    """That server has its state."""
    assert len({world.pool.pick(sticky=7).transport for _ in range(9)}) == 1


def test_a_lost_server_knows_no_regions_any_more(world):
    """Whoever listens there next was never told of them."""
    world.members["b"].regions.add("r")
    world.fail("b")
    assert not world.members["b"].regions


def test_a_single_server_is_always_picked():
    """Resting would only turn an attempt into a refusal."""
    world = World("a")
    world.fail("a")
    assert world.turns(3) == "aaa"
