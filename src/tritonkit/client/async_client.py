"""The client for asyncio: the twin of `client`, with the same verbs, except that
asyncio.create_task stands for `submit`."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Literal, Self

from tritonkit.client.base import ClientBase
from tritonkit.client.connect import Token, async_transport
from tritonkit.client.deadline import CLIENT_TIMEOUT, Timeout
from tritonkit.client.events import Hook
from tritonkit.client.inference import SequencePart
from tritonkit.client.io import AsyncIO
from tritonkit.client.operations import Operation
from tritonkit.client.pending_aio import in_order
from tritonkit.client.placement import SharedMemory
from tritonkit.client.result import InferResult
from tritonkit.client.retry import Retries
from tritonkit.client.spec import ModelSpec
from tritonkit.client.transport import AsyncTransport, Compression, Parameter, Tls


class AsyncClient(ClientBase):
    """Calls models on a Triton server, or on several, from one asyncio event loop.

    Everything is as in `Client`, which describes it. Cancelling a task gives up its request.

    >>> import asyncio
    >>> from tritonkit import AsyncClient
    >>> from tritonkit.client.fake import AsyncFakeTransport, FakeModel
    >>> twice = FakeModel(["x:FP32[-1,2]"], ["y:FP32[-1,2]"], 8, lambda x: {"y": x + x})
    >>> async def main():
    ...     async with AsyncClient(transport=AsyncFakeTransport({"twice": twice})) as client:
    ...         return (await client.infer("twice", [[1, 2], [3, 4]]))["y"].tolist()
    >>> asyncio.run(main())
    [[2.0, 4.0], [6.0, 8.0]]
    """

    def __init__(
        self,
        address: str | Sequence[str] = (),
        *,
        timeout_s: float | None = 30.0,
        retries: Retries = Retries(),  # noqa: B008
        tls: Tls | None = None,
        token: Token | None = None,
        headers: Mapping[str, str] | None = None,
        compression: Compression | None = None,
        shared_memory: SharedMemory = "auto",
        nan: Literal["send", "refuse"] = "send",
        hooks: Sequence[Hook] = (),
        transport: AsyncTransport | None = None,
    ):
        super().__init__(
            AsyncIO(),
            address,
            transport,
            async_transport,
            timeout_s=timeout_s,
            retries=retries,
            tls=tls,
            token=token,
            headers=headers,
            compression=compression,
            shared_memory=shared_memory,
            nan=nan,
            hooks=hooks,
        )

    # Inference

    async def infer(
        self,
        model: str,
        inputs: Any = None,
        /,
        *,
        version: str = "",
        outputs: Sequence[str] = (),
        classes: int = 0,
        id: str = "",
        priority: int = 0,
        sequence: SequencePart | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: Timeout = CLIENT_TIMEOUT,
        **tensors: Any,
    ) -> InferResult:
        """As `Client.infer`."""
        options = self._options(
            *(version, outputs, classes, id, priority, sequence, parameters, headers, timeout_s)
        )
        return await self._inference.infer(model, inputs, tensors, options)

    def map(
        self,
        model: str,
        items: Iterable[Any] | AsyncIterable[Any],
        /,
        *,
        max_in_flight: int = 32,
        progress: Callable[[int], None] | None = None,
        version: str = "",
        outputs: Sequence[str] = (),
        classes: int = 0,
        priority: int = 0,
        parameters: Mapping[str, Parameter] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: Timeout = CLIENT_TIMEOUT,
    ) -> AsyncIterator[InferResult]:
        """As `Client.map`."""
        options = self._options(
            *(version, outputs, classes, "", priority, None, parameters, headers, timeout_s)
        )

        async def send(item: Any) -> InferResult:
            return await self._inference.infer(model, item, {}, options)

        return in_order(items, send, max_in_flight, progress)

    async def stream(
        self,
        model: str,
        inputs: Any = None,
        /,
        *,
        version: str = "",
        outputs: Sequence[str] = (),
        id: str = "",
        priority: int = 0,
        sequence: SequencePart | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: Timeout = CLIENT_TIMEOUT,
        **tensors: Any,
    ) -> AsyncIterator[InferResult]:
        """As `Client.stream`."""
        options = self._options(
            *(version, outputs, 0, id, priority, sequence, parameters, headers, timeout_s)
        )
        opened = await self._inference.open_stream(model, inputs, tensors, options)
        with opened.watched():
            async with aclosing(opened.answers()) as answers:
                async for response in answers:
                    yield opened.read(response)

    # What the server has

    async def spec(
        self, model: str, *, version: str = "", timeout_s: Timeout = CLIENT_TIMEOUT
    ) -> ModelSpec:
        """As `Client.spec`."""
        return await self._control.spec(model, version, self._deadline(timeout_s))

    async def config(
        self, model: str, *, version: str = "", timeout_s: Timeout = CLIENT_TIMEOUT
    ) -> dict[str, Any]:
        """As `Client.config`."""
        return await self._ask(Operation.CONFIG, timeout_s, model=model, version=version)  # type: ignore[no-any-return]

    async def statistics(
        self, model: str = "", *, version: str = "", timeout_s: Timeout = CLIENT_TIMEOUT
    ) -> list[dict[str, Any]]:
        """As `Client.statistics`."""
        answer = await self._ask(Operation.STATISTICS, timeout_s, model=model, version=version)
        return list(answer["model_stats"])

    async def server(self, *, timeout_s: Timeout = CLIENT_TIMEOUT) -> dict[str, Any]:
        """As `Client.server`."""
        return await self._ask(Operation.SERVER, timeout_s)  # type: ignore[no-any-return]

    async def models(
        self, *, ready: bool = False, timeout_s: Timeout = CLIENT_TIMEOUT
    ) -> list[dict[str, Any]]:
        """As `Client.models`."""
        return await self._ask(Operation.INDEX, timeout_s, ready=ready)  # type: ignore[no-any-return]

    # Whether it can be called

    async def is_live(self, *, timeout_s: Timeout = CLIENT_TIMEOUT) -> bool:
        """As `Client.is_live`."""
        return await self._control.holds(Operation.LIVE, {}, self._deadline(timeout_s))

    async def is_ready(
        self, model: str = "", *, version: str = "", timeout_s: Timeout = CLIENT_TIMEOUT
    ) -> bool:
        """As `Client.is_ready`."""
        operation = Operation.MODEL_READY if model else Operation.READY
        which = {"model": model, "version": version} if model else {}
        return await self._control.holds(operation, which, self._deadline(timeout_s))

    async def wait_until_ready(
        self, model: str = "", *, version: str = "", timeout_s: float = 60.0
    ) -> None:
        """As `Client.wait_until_ready`."""
        await self._control.wait_until_ready(model, version, timeout_s)

    # Control, on every server

    async def load(
        self,
        model: str,
        *,
        config: Mapping[str, Any] | None = None,
        files: Mapping[str, bytes] | None = None,
        timeout_s: Timeout = CLIENT_TIMEOUT,
    ) -> None:
        """As `Client.load`."""
        await self._control.load(model, config, files, self._deadline(timeout_s))

    async def unload(
        self, model: str, *, dependents: bool = False, timeout_s: Timeout = CLIENT_TIMEOUT
    ) -> None:
        """As `Client.unload`."""
        await self._ask_all(Operation.UNLOAD, timeout_s, model=model, unload_dependents=dependents)

    async def trace_settings(
        self,
        model: str = "",
        *,
        change: Mapping[str, Any] | None = None,
        timeout_s: Timeout = CLIENT_TIMEOUT,
    ) -> dict[str, Any]:
        """As `Client.trace_settings`."""
        settings = dict(change or {})
        return await self._ask_all(Operation.TRACE, timeout_s, model=model, settings=settings)  # type: ignore[no-any-return]

    async def log_settings(
        self, *, change: Mapping[str, Any] | None = None, timeout_s: Timeout = CLIENT_TIMEOUT
    ) -> dict[str, Any]:
        """As `Client.log_settings`."""
        return await self._ask_all(Operation.LOG, timeout_s, settings=dict(change or {}))  # type: ignore[no-any-return]

    # Its own life

    async def close(self) -> None:
        """As `Client.close`."""
        await self._inference.close()
        await self._calls.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # Of use to the above

    async def _ask(self, operation: Operation, timeout_s: Timeout, **arguments: Any) -> Any:
        return await self._calls.ask(operation, arguments, self._deadline(timeout_s))

    async def _ask_all(self, operation: Operation, timeout_s: Timeout, **arguments: Any) -> Any:
        return await self._control.ask_all(operation, arguments, self._deadline(timeout_s))
