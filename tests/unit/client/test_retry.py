"""What is tried again, how often, and when it ends."""

import time

import pytest

from tritonkit.client.io import run
from tritonkit.client.retry import Budget, Retries, may_retry, try_again
from tritonkit.errors import (
    DeadlineError,
    InputError,
    ProtocolError,
    RejectedError,
    RequestError,
    UnavailableError,
    request_error,
)

DEFAULT = Retries()


class World:
    """Tries that fail `failures` times before they work, and the waits between them."""

    def __init__(self, failures: int, retries: Retries = DEFAULT, kind: str = "refused"):
        self.failures, self.kind, self.retries = failures, kind, retries
        self.tries, self.waits, self.told = 1, [], []
        self.budget = Budget(retries)

    async def attempt(self) -> str:
        self.tries += 1
        if self.tries <= self.failures:
            raise request_error(self.kind, f"try {self.tries}")
        return "answer"

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)

    def go(self, *, repeatable=True, deadline_s=None, elsewhere=False):
        return run(
            try_again(
                self.attempt,
                request_error(self.kind, "try 1"),
                self.retries,
                self.budget,
                repeatable=repeatable,
                deadline_s=deadline_s,
                elsewhere=lambda: elsewhere,
                sleep=self.sleep,
                before_wait=lambda *told: self.told.append(told),
            )
        )


def test_it_tries_until_it_works():
    """Two failures, then an answer."""
    world = World(failures=2)
    assert world.go() == "answer"
    assert world.tries == 3


def test_it_gives_up_after_so_many_tries():
    """The last failure is what is raised."""
    world = World(failures=99, retries=Retries(tries=3))
    with pytest.raises(UnavailableError, match="try 3"):
        world.go()
    assert world.tries == 3


def test_waits_are_random_within_a_doubling_bound():
    """Full jitter: from nothing to the bound of that try."""
    bounds = [0.1, 0.2, 0.4, 0.4]
    seen = []
    for _ in range(50):
        world = World(99, Retries(tries=5, first_wait_s=0.1, longest_wait_s=0.4))
        with pytest.raises(UnavailableError):
            world.go()
        seen.append(world.waits)
    for waits, bound in zip(zip(*seen, strict=True), bounds, strict=True):
        assert 0 <= min(waits) < bound / 2 < max(waits) <= bound


def test_another_server_is_tried_at_once():
    """There is nothing to wait for."""
    world = World(failures=2)
    world.go(elsewhere=True)
    assert world.waits == [0, 0]


def test_no_wait_goes_beyond_the_deadline():
    """It would only delay the failure."""
    world = World(99, Retries(tries=9, first_wait_s=10, longest_wait_s=10))
    with pytest.raises(UnavailableError, match="try 1"):
        world.go(deadline_s=time.monotonic() + 1e-3)
    assert world.waits == []


@pytest.mark.parametrize("kind", ["refused", "closed", "unavailable"])
def test_what_may_work_next_time_is_tried_again(kind):
    """Nothing was done, or only an inference that leaves no trace."""
    assert may_retry(request_error(kind, ""), repeatable=True)


@pytest.mark.parametrize("kind", ["refused", "unavailable"])
def test_a_part_of_a_sequence_is_tried_again_if_it_was_not_run(kind):
    """Then its state is as it was."""
    assert may_retry(request_error(kind, ""), repeatable=False)


def test_a_part_of_a_sequence_that_may_have_run_is_not():
    """A second time it would change the state twice."""
    assert not may_retry(request_error("closed", ""), repeatable=False)


@pytest.mark.parametrize(
    "kind",
    [
        *(*DeadlineError.kinds, *RejectedError.kinds, *ProtocolError.kinds),
        *("not_found", "forbidden", "unauthenticated", "failed", "cancelled"),
    ],
)
def test_what_will_not_work_is_not_tried_again(kind):
    """Each would only repeat its failure, or the work."""
    assert not may_retry(request_error(kind, ""), repeatable=True)


def test_every_kind_is_decided():
    """The two tests above leave none out."""
    kinds = [kind for error in RequestError.__subclasses__() for kind in error.kinds]
    assert len(kinds) == 13


def test_bad_input_is_not_tried_again():
    """Only requests are."""
    assert not may_retry(InputError("no"), repeatable=True)


def test_a_spent_budget_ends_the_tries():
    """However many one request would still have."""
    world = World(99, Retries(tries=10, budget=2))
    with pytest.raises(UnavailableError, match="try 3"):
        world.go()


def test_answers_earn_tries():
    """Ten answers, one more try."""
    budget = Budget(Retries(budget=1, earned=0.1))
    assert budget.spend()
    assert not budget.spend()
    for _ in range(11):
        budget.earn()
    assert budget.spend()
    assert not budget.spend()


def test_nobody_earns_beyond_the_budget():
    """A long quiet time must not pay for a storm."""
    budget = Budget(Retries(budget=1, earned=0.5))
    for _ in range(100):
        budget.earn()
    assert [budget.spend() for _ in range(2)] == [True, False]


def test_each_wait_is_told():
    """With the failure, the number of tries so far, and the wait."""
    world = World(failures=2)
    world.go()
    assert [(str(e), tries) for e, tries, _ in world.told] == [("try 1", 1), ("try 2", 2)]
    assert [wait for _, _, wait in world.told] == world.waits


def test_what_cannot_be_repaired_ends_the_tries():
    """Here the second try is refused for good."""
    world = World(failures=99)

    async def refuse() -> str:
        raise request_error("invalid", "wrong shape")

    world.attempt = refuse
    with pytest.raises(RejectedError):
        world.go()
