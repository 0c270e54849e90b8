"""An inference, from what a user gives to what a user gets: checks, parts, memory, sending."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from tritonkit.client.calls import Calls
from tritonkit.client.control import Control
from tritonkit.client.deadline import Deadline
from tritonkit.client.events import RequestEnded
from tritonkit.client.placement import (
    SharedMemory,
    SharedTensors,
)
from tritonkit.client.pool import Member
from tritonkit.client.result import InferResult, read_classes
from tritonkit.client.sending import Sending
from tritonkit.client.spec import ModelSpec
from tritonkit.client.tensors import Checked, check_inputs, encode, join, split
from tritonkit.client.transport import (
    Cancellation,
    InferRequest,
    InferResponse,
    Parameter,
    Wanted,
)
from tritonkit.errors import (
    InputError,
    RequestCancelledError,
    RequestError,
    TensorError,
)

# After these a server may still be at work on the request.
_NOT_OVER = ("timeout", "cancelled", "closed")


class SequencePart(NamedTuple):
    """A request's place in a sequence, for models that keep state between requests.

    id: of the sequence, the same in all of its requests; not 0 or empty. start, end: whether this
    is its first, or its last.
    """

    id: int | str
    start: bool = False
    end: bool = False


class Options(NamedTuple):
    """What a call may say besides its tensors; see `Client.infer`."""

    version: str = ""
    outputs: Sequence[str] = ()
    classes: int = 0
    id: str = ""
    priority: int = 0
    sequence: SequencePart | None = None
    parameters: Mapping[str, Parameter] = {}
    headers: Mapping[str, str] = {}
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """A request ready to be streamed.

    answers: begins to stream. read: makes a result of an answer. ended: is told how it went.
    """

    answers: Callable[[], Any]
    read: Callable[[InferResponse], InferResult]
    ended: Callable[[RequestError | None], None]

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Tells `ended` how the block ended."""
        error: RequestError | None = None
        try:
            yield
        except RequestError as failure:
            error = failure
            raise
        except (Exception, GeneratorExit):  # the reader's own, or it left the loop
            raise
        except BaseException:
            error = _given_up()
            raise
        finally:
            self.ended(error)
            error = None  # or it and its traceback are a cycle


class Inference:
    """A client's inference. shared_memory, nan: as `Client` has them."""

    def __init__(
        self,
        calls: Calls,
        control: Control,
        *,
        shared_memory: SharedMemory,
        nan: Literal["send", "refuse"],
    ):
        self._calls = calls
        self._control = control
        self._memory = (
            SharedTensors(shared_memory, calls.pool.members, calls.call, calls.io.sleep)
            if shared_memory
            else None
        )
        self._nan = nan

    async def infer(
        self,
        model: str,
        given: Any,
        named: Mapping[str, Any],
        options: Options,
        cancellation: Cancellation | None = None,
    ) -> InferResult:
        """Check, send, and wait; several requests if there are more rows than one may have."""
        deadline = Deadline(options.timeout_s)
        started_s = time.perf_counter() if self._calls.hooks else 0.0
        try:
            spec, checked = await self._checked(model, given, named, options.version, deadline)
        except RequestError as error:
            self._tell_ended(model, options, started_s, error)
            raise
        most = spec.max_batch_size
        if 0 < most < checked.rows:
            if options.sequence is not None:
                raise _too_many_rows(spec, checked, "a part of a sequence")
            sizes = [min(most, checked.rows - i) for i in range(0, checked.rows, most)]
            parts = zip(split(checked.arrays, checked.rows, most), sizes, strict=True)
            results = await self._calls.io.all(
                [self._infer(spec, a, n, options, deadline, cancellation) for a, n in parts]
            )
            return results[0].replaced(join(results, sizes))
        result = await self._infer(
            spec, checked.arrays, checked.rows, options, deadline, cancellation
        )
        return result.single_row() if checked.single_row else result

    async def open_stream(
        self, model: str, given: Any, named: Mapping[str, Any], options: Options
    ) -> Opened:
        """All that comes before the first answer of a stream."""
        deadline = Deadline(options.timeout_s)
        started_s = time.perf_counter()
        spec, checked = await self._checked(model, given, named, options.version, deadline)
        if 0 < spec.max_batch_size < checked.rows:
            raise _too_many_rows(spec, checked, "a stream")
        member = await self._calls.deliver(_itself, deadline, model, sticky=_sticky(options))
        request = self._request(spec, checked.arrays, options, deadline)

        def read(response: InferResponse) -> InferResult:
            result = InferResult(response)
            return result.single_row() if checked.single_row else result

        def ended(error: RequestError | None) -> None:
            self._calls.pool.report(member, error)
            self._tell_ended(
                model, options, started_s, error, rows=checked.rows, member=member, tries=1
            )

        answers = partial(
            member.transport.stream,
            member.transport.encode(request),
            timeout_s=deadline.left_s(model),
            headers=self._calls.headers_of(options.headers),
        )
        return Opened(answers, read, ended)

    async def _checked(
        self, model: str, given: Any, named: Mapping[str, Any], version: str, deadline: Deadline
    ) -> tuple[ModelSpec, Checked]:
        self._calls.require_open()
        known = self._control.known(model, version)
        spec = known or await self._control.spec(model, version, deadline)
        try:
            return spec, check_inputs(spec, given, named, nan=self._nan)
        except TensorError:
            if known is None:
                raise
            # Perhaps the model was loaded anew, and takes these now.
            self._control.forget(model, version)
            with suppress(RequestError):
                spec = await self._control.spec(model, version, deadline)
            if spec == known:
                raise
        return spec, check_inputs(spec, given, named, nan=self._nan)

    async def _infer(
        self,
        spec: ModelSpec,
        arrays: Mapping[str, np.ndarray],
        rows: int,
        options: Options,
        deadline: Deadline,
        cancellation: Cancellation | None,
    ) -> InferResult:
        started_s = time.perf_counter() if self._calls.hooks else 0.0
        request = self._request(spec, arrays, options, deadline)
        memory, placed = self._memory, None
        if memory is not None and memory.is_of_use(request, spec, rows):
            placed = await memory.place(request, spec, rows)
        headers = self._calls.headers_of(options.headers)
        sending = Sending(self._calls.io, memory, request, placed, deadline, headers, cancellation)
        error: RequestError | None = None
        over = False
        try:
            response = await self._calls.deliver(
                sending.to,
                deadline,
                spec.name,
                options.sequence is None,
                _sticky(options),
            )
            over = True
            result = InferResult(response)
            if options.classes:
                return result.replaced({n: read_classes(a) for n, a in result.items()})
            return result
        except RequestError as failure:
            error = failure
            over = over or failure.kind not in _NOT_OVER
            if failure.kind == "invalid":
                # Perhaps the model was loaded anew, and is another now.
                self._control.forget(spec.name, options.version)
            raise
        except BaseException as failure:
            if not isinstance(failure, Exception):  # a task or a greenlet that is ended, Ctrl-C
                error = _given_up()
            raise
        finally:
            if memory is not None and placed is not None:
                await memory.release(placed, over)
            member = sending.member
            if member is not None and (over or error is not None):
                tries = sending.tries
                self._tell_ended(
                    spec.name, options, started_s, error, rows=rows, member=member, tries=tries
                )
            error = None  # or it, its traceback, this frame and the connection are a cycle

    def _request(
        self,
        spec: ModelSpec,
        arrays: Mapping[str, np.ndarray],
        options: Options,
        deadline: Deadline,
    ) -> InferRequest:
        parameters = dict(options.parameters) if options.parameters else {}
        if deadline.timeout_s is not None:
            # The whole, not what is left of it: a little late for the server is early enough.
            parameters["timeout"] = max(int(deadline.timeout_s * 1e6), 1)
        if options.priority:
            parameters["priority"] = options.priority
        if options.sequence is not None:
            parameters["sequence_id"] = options.sequence.id
            parameters["sequence_start"] = options.sequence.start
            parameters["sequence_end"] = options.sequence.end
        names = options.outputs
        if options.classes and not names:
            names = [t.name for t in spec.signature.outputs]
        if names:
            spec.require_outputs(names)
        return InferRequest(
            spec.name,
            encode(arrays, spec),
            options.version,
            tuple([Wanted(name, options.classes) for name in names]),
            options.id,
            parameters,
        )

    async def close(self) -> None:
        """Unregister and remove the shared memory."""
        if self._memory is not None:
            await self._memory.close()

    def _tell_ended(
        self,
        model: str,
        options: Options,
        started_s: float,
        error: RequestError | None,
        *,
        rows: int = 0,
        member: Member | None = None,
        tries: int = 0,
    ) -> None:
        """member: None if it failed before it could be sent, at what the model takes."""
        if self._calls.hooks:
            self._calls.tell(
                RequestEnded(
                    model=model,
                    version=options.version,
                    address=self._calls.addresses() if member is None else member.transport.address,
                    rows=rows,
                    tries=tries,
                    latency_s=time.perf_counter() - started_s,
                    error=error.kind if error is not None else "",
                    request_id=options.id,
                )
            )


def _too_many_rows(spec: ModelSpec, checked: Checked, what: str) -> TensorError:
    return TensorError(
        f"{spec.name}: {checked.rows} rows; {what} is one request, and this model takes at most "
        f"{spec.max_batch_size} rows in one"
    )


def _given_up() -> RequestError:
    return RequestCancelledError("cancelled", "given up by its caller")


async def _itself(member: Member) -> Member:
    return member


def _sticky(options: Options) -> int | None:
    """Which server has a sequence's state: the one that all of its parts are sent to."""
    if options.sequence is None:
        return None
    if not options.sequence.id:
        raise InputError("a sequence's id must be neither 0 nor empty")
    text = str(options.sequence.id).encode(errors="surrogatepass")
    return int.from_bytes(text, "big") % (2**61 - 1)
