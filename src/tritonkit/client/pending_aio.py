"""Many requests under way as tasks, their results in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

from tritonkit.client.result import InferResult
from tritonkit.client.values import owned
from tritonkit.errors import InputError, TritonkitError


async def in_order(
    items: Iterable[Any] | AsyncIterable[Any],
    send: Callable[[Any], Awaitable[InferResult]],
    max_in_flight: int,
    progress: Callable[[int], None] | None,
) -> AsyncIterator[InferResult]:
    """As `pending.in_order`; the items may come from an asynchronous iterable too."""
    if max_in_flight < 1:
        raise InputError(f"max_in_flight is {max_in_flight}; it must be at least 1")
    pending: deque[asyncio.Future[InferResult]] = deque()
    done = 0

    async def first() -> InferResult:
        nonlocal done
        try:
            result = await pending[0]
        except TritonkitError as error:
            error.args = (f"item {done}: {error}",)
            raise
        pending.popleft()
        done += 1
        if progress is not None:
            progress(done)
        return result

    try:
        async for item in _each(items):
            pending.append(asyncio.ensure_future(send(owned(item))))
            if len(pending) == max_in_flight:
                yield await first()
        while pending:
            yield await first()
    finally:
        for rest in pending:
            rest.cancel()
        await asyncio.gather(*pending, return_exceptions=True)


async def _each(items: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
