"""Requests under way in threads of their own: one to wait for or give up, or many in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from threading import Thread
from typing import Any

from tritonkit.client.result import InferResult
from tritonkit.client.transport import Cancellation
from tritonkit.client.values import owned
from tritonkit.errors import DeadlineError, InputError, RequestCancelledError, TritonkitError

Send = Callable[[Cancellation], InferResult]


class Pending:
    """A request under way, from `Client.submit`."""

    def __init__(self, workers: ThreadPoolExecutor, send: Send):
        self._cancellation = Cancellation()
        try:
            self._future: Future[InferResult] = workers.submit(send, self._cancellation)
        except BaseException:  # Ctrl-C while a thread is started, which may be at work all the same
            self._cancellation.cancel()
            raise

    def result(self, timeout_s: float | None = None) -> InferResult:
        """Wait for the answer; raises what `infer` would.

        DeadlineError if it does not come within timeout_s (the request goes on), and
        RequestCancelledError if it was given up.
        """
        try:
            return self._future.result(timeout_s)
        except CancelledError as error:
            raise RequestCancelledError("cancelled", "given up before it was sent") from error
        except TimeoutError as error:
            raise DeadlineError("timeout", f"no answer within {timeout_s:g} s yet") from error

    def done(self) -> bool:
        """Whether `result` would return, or raise, at once."""
        return self._future.done()

    def cancel(self) -> None:
        """Give the request up. Over gRPC the server stops what it has not begun; over HTTP the
        connection is closed, which Triton notices only when it answers.
        """
        self._cancellation.cancel()
        self._future.cancel()


def in_order(
    items: Iterable[Any],
    send: Callable[[Any, Cancellation], InferResult],
    max_in_flight: int,
    progress: Callable[[int], None] | None,
) -> Iterator[InferResult]:
    """Each item's result, in the items' order; at most max_in_flight items are held at a time.

    progress: is told how many have been answered. A failure, or leaving the loop early,
    gives up what is under way.
    """
    if max_in_flight < 1:
        raise InputError(f"max_in_flight is {max_in_flight}; it must be at least 1")
    return _in_order(items, send, max_in_flight, progress)


def _in_order(
    items: Iterable[Any],
    send: Callable[[Any, Cancellation], InferResult],
    max_in_flight: int,
    progress: Callable[[int], None] | None,
) -> Iterator[InferResult]:
    pending: deque[Pending] = deque()
    done = 0

    def first() -> InferResult:
        nonlocal done
        try:
            result = pending[0].result()
        except TritonkitError as error:
            error.args = (f"item {done}: {error}",)
            raise
        pending.popleft()
        done += 1
        if progress is not None:
            progress(done)
        return result

    with ThreadPoolExecutor(max_in_flight, thread_name_prefix="tritonkit-map") as workers:
        try:
            for item in items:
                pending.append(Pending(workers, partial(send, owned(item))))
                if len(pending) == max_in_flight:
                    yield first()
            while pending:
                yield first()
        finally:
            if pending:
                # In a thread, where no second Ctrl-C can interrupt it.
                ending = Thread(target=_cancel_all, args=(tuple(pending),))
                ending.start()
                ending.join()


def _cancel_all(pending: Iterable[Pending]) -> None:
    for each in pending:
        each.cancel()
