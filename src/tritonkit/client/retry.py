"""What is tried again, how often, and after how long.

Only failures after which the server has certainly not done anything that matters twice: it could
not be reached, it said that it takes no requests now, or the connection was lost under way (an
inference has no effect but its answer; a step of a sequence has, so that is not sent again).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential
from tenacity.stop import stop_after_attempt

from tritonkit.errors import RequestError, UnavailableError


@dataclass(frozen=True)
class Retries:
    """tries: at most so many for one request, the first one included; 1 never tries again.

    first_wait_s, longest_wait_s: between tries of one server, random from 0 up to a bound that
    doubles from the one to the other ("full jitter"). Another server is tried at once.
    budget: so many tries again may be made in a burst; each request that is answered earns
    `earned` more. It keeps many clients from multiplying the load of a server that is down with
    it. Source of both: the AWS Builders' Library, "Timeouts, retries, and backoff with jitter".
    """

    tries: int = 4
    first_wait_s: float = 0.05
    longest_wait_s: float = 1.0
    budget: float = 100.0
    earned: float = 0.1


T = TypeVar("T")

NO_RETRIES = Retries(tries=1)


class Budget:
    """How many tries again a client still has."""

    def __init__(self, retries: Retries):
        self._most, self._earned = retries.budget, retries.earned
        self._left = retries.budget
        self._lock = threading.Lock()

    def earn(self) -> None:
        """A request was answered."""
        if self._left < self._most:
            with self._lock:
                self._left = min(self._left + self._earned, self._most)

    def spend(self) -> bool:
        """Take one try again. False if there is none left."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True


def may_retry(error: BaseException, repeatable: bool) -> bool:
    """Whether the request may be sent again. repeatable: running it twice does no harm."""
    return isinstance(error, UnavailableError) and (repeatable or error.kind != "closed")


async def try_again(
    attempt: Callable[[], Awaitable[T]],
    failed: RequestError,
    retries: Retries,
    budget: Budget,
    *,
    repeatable: bool,
    deadline_s: float | None,
    elsewhere: Callable[[], bool],
    sleep: Callable[[float], Awaitable[None]],
    before_wait: Callable[[RequestError, int, float], None],
) -> T:
    """What to do after the first try has `failed`: raise that, or try again until it works.

    deadline_s: on time.monotonic's clock; no wait goes beyond it. elsewhere: whether the next try
    goes to another server. before_wait: is told (error, tries so far, wait in seconds).
    """
    first: RequestError | None = failed

    async def next_try() -> T:
        nonlocal first
        if first is not None:  # tenacity counts the first try too, which has been made
            error, first = first, None
            raise error
        return await attempt()

    jitter = wait_random_exponential(multiplier=retries.first_wait_s, max=retries.longest_wait_s)

    def wait_s(state: RetryCallState) -> float:
        return 0.0 if elsewhere() else jitter(state)

    def no_time_left(state: RetryCallState) -> bool:
        return deadline_s is not None and time.monotonic() + state.upcoming_sleep >= deadline_s

    def tell(state: RetryCallState) -> None:
        assert state.outcome is not None
        error = state.outcome.exception()
        assert isinstance(error, RequestError)
        before_wait(error, state.attempt_number, state.upcoming_sleep)

    def stop(state: RetryCallState) -> bool:
        return attempts(state) or no_time_left(state) or not budget.spend()

    attempts = stop_after_attempt(retries.tries)
    retrying = AsyncRetrying(
        sleep=sleep,
        stop=stop,
        wait=wait_s,
        retry=retry_if_exception(lambda error: may_retry(error, repeatable)),
        before_sleep=tell,
        reraise=True,
    )
    return await retrying(next_try)
