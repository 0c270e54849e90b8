"""What both clients do, written once: metadata, checks, splitting, tries, shared memory, events."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np

from tritonkit.client.deadline import Deadline
from tritonkit.client.events import Event, Hook, RequestEnded, RequestRetried, emit
from tritonkit.client.io import IO
from tritonkit.client.operations import Operation
from tritonkit.client.placement import SharedMemory, SharedTensors, is_forgotten_region
from tritonkit.client.pool import Member, Pool
from tritonkit.client.result import InferResult, read_classes
from tritonkit.client.retry import Budget, Retries, may_retry, try_again
from tritonkit.client.spec import ModelSpec, read_spec
from tritonkit.client.tensors import Checked, check_inputs, encode, join, split
from tritonkit.client.transport import (
    Cancellation,
    InferRequest,
    InferResponse,
    Parameter,
    Wanted,
)
from tritonkit.errors import (
    DeadlineError,
    InputError,
    RequestCancelledError,
    RequestError,
    TensorError,
    UnavailableError,
)

T = TypeVar("T")

Headers = Mapping[str, str] | Callable[[], Mapping[str, str]]

# How long a server that has failed may take to say that it is ready again.
_TRIAL_S = 1.0
# How long a server may take to say whether it is ready, before it is asked anew.
_ASK_S = 5.0
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


class Core:
    """The verbs as coroutines over `io`. headers: of every request.

    shared_memory: True, never (False), or where it pays ("auto": large tensors, servers on this
    machine that accept it). nan: whether NaN and infinity are sent, or refused.
    """

    def __init__(
        self,
        transports: Sequence[Any],
        io: IO,
        *,
        retries: Retries,
        headers: Headers,
        shared_memory: SharedMemory,
        nan: Literal["send", "refuse"],
        hooks: Sequence[Hook],
    ):
        self._io = io
        self._hooks = tuple(hooks)
        self.pool = Pool(transports, self._tell)
        self._retries, self._budget = retries, Budget(retries)
        self._headers = headers
        self._memory = (
            SharedTensors(shared_memory, self.pool.members, self._call, io.sleep)
            if shared_memory
            else None
        )
        self._nan = nan
        self._specs: dict[tuple[str, str], ModelSpec] = {}
        self._closed = False

    # Inference

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
        spec, checked = await self._checked(model, given, named, options.version, deadline)
        most = spec.max_batch_size
        if 0 < most < checked.rows:
            self._require_splittable(spec, checked, options)
            sizes = [min(most, checked.rows - i) for i in range(0, checked.rows, most)]
            parts = zip(split(checked.arrays, checked.rows, most), sizes, strict=True)
            results = await self._io.all(
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
            raise TensorError(
                f"{model}: {checked.rows} rows; a stream is one request, and this model takes at "
                f"most {spec.max_batch_size} rows in one"
            )
        member = await self._deliver(_itself, deadline, model, sticky=_sticky(options))
        request = self._request(spec, checked.arrays, options, deadline)

        def read(response: InferResponse) -> InferResult:
            result = InferResult(response)
            return result.single_row() if checked.single_row else result

        def ended(error: RequestError | None) -> None:
            self.pool.report(member, error)
            if self._hooks:
                self._tell_ended(request, checked.rows, member, 1, started_s, error)

        answers = partial(
            member.transport.stream,
            member.transport.encode(request),
            timeout_s=deadline.left_s(model),
            headers=self._headers_of(options.headers),
        )
        return Opened(answers, read, ended)

    async def _checked(
        self, model: str, given: Any, named: Mapping[str, Any], version: str, deadline: Deadline
    ) -> tuple[ModelSpec, Checked]:
        self._require_open()
        known = self._specs.get((model, version))
        spec = known or await self.spec(model, version, deadline)
        try:
            return spec, check_inputs(spec, given, named, nan=self._nan)
        except TensorError:
            if known is None:
                raise
            # Perhaps the model was loaded anew, and takes these now.
            self._specs.pop((model, version), None)
            with suppress(RequestError):
                spec = await self.spec(model, version, deadline)
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
        started_s = time.perf_counter() if self._hooks else 0.0
        request = self._request(spec, arrays, options, deadline)
        memory, placed = self._memory, None
        if memory is not None:
            placed = await memory.place(request, spec, rows)
        headers = self._headers_of(options.headers)
        tried: list[Member] = []
        by_wire: Any = None
        by_memory: Any = None

        async def send(member: Member) -> InferResult:
            nonlocal by_wire, by_memory
            tried.append(member)
            transport = member.transport
            if placed is not None and memory is not None:
                left_s = deadline.left_s(spec.name)
                if await memory.register(member, placed, left_s):
                    by_memory = by_memory or transport.encode(placed.request)
                    try:
                        return read(member, await post(member, by_memory))
                    except RequestError as error:
                        if not is_forgotten_region(error):
                            raise
                        member.regions.clear()  # for the next request; this one goes by wire
            by_wire = by_wire or transport.encode(request)
            return read(member, await post(member, by_wire))

        async def post(member: Member, message: Any) -> Any:
            left_s = deadline.left_s(spec.name)
            return await self._io.send(member.transport, message, left_s, headers, cancellation)

        def read(member: Member, answer: Any) -> InferResult:
            response: InferResponse = member.transport.decode(answer)
            result = InferResult(response if placed is None else placed.collect(response))
            if options.classes:
                return result.replaced({n: read_classes(a) for n, a in result.items()})
            return result

        error: RequestError | None = None
        over = False
        try:
            result = await self._deliver(
                send, deadline, spec.name, options.sequence is None, _sticky(options)
            )
            over = True
            return result
        except RequestError as failure:
            error = failure
            over = failure.kind not in _NOT_OVER
            if failure.kind == "invalid":
                # Perhaps the model was loaded anew, and is another now.
                self._specs.pop((spec.name, options.version), None)
            raise
        except BaseException as failure:
            if not isinstance(failure, Exception):  # a task or a greenlet that is ended, Ctrl-C
                error = _given_up()
            raise
        finally:
            if memory is not None and placed is not None:
                await memory.release(placed, over)
            if self._hooks and tried and (over or error is not None):
                self._tell_ended(request, rows, tried[-1], len(tried), started_s, error)

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

    def _require_splittable(self, spec: ModelSpec, checked: Checked, options: Options) -> None:
        if options.sequence is not None:
            raise TensorError(
                f"{spec.name}: {checked.rows} rows; a part of a sequence is one request, and this "
                f"model takes at most {spec.max_batch_size} rows in one"
            )

    # Tries

    async def _deliver(
        self,
        send: Callable[[Member], Awaitable[T]],
        deadline: Deadline,
        model: str,
        repeatable: bool = True,
        sticky: int | None = None,
    ) -> T:
        """`send` to the server whose turn it is, and to the next if that may help."""
        tried: list[Member] = []

        async def attempt() -> T:
            member = self.pool.pick(tried, sticky)
            tried.append(member)
            try:
                if member.on_trial:
                    await self._require_ready(member, deadline)
                answer = await send(member)
            except RequestError as error:
                self.pool.report(member, error)
                raise
            except BaseException:
                member.on_trial = False
                raise
            self.pool.report(member, None)
            self._budget.earn()
            return answer

        def tell(error: RequestError, tries: int, wait_s: float) -> None:
            self._tell(
                RequestRetried(model, tried[-1].transport.address, tries, wait_s, error.kind)
            )

        try:
            return await attempt()
        except RequestError as error:
            if self._closed or not may_retry(error, repeatable) or self._retries.tries <= 1:
                raise
            first = error
        return await try_again(
            attempt,
            first,
            self._retries,
            self._budget,
            repeatable=repeatable,
            deadline_s=deadline.at_s,
            elsewhere=lambda: sticky is None and len(set(tried)) < len(self.pool.members),
            sleep=self._io.sleep,
            before_wait=tell,
        )

    async def _require_ready(self, member: Member, deadline: Deadline) -> None:
        left_s = deadline.left_s(member.transport.address)
        timeout_s = _TRIAL_S if left_s is None else min(_TRIAL_S, left_s / 2)
        try:
            ready = await self._io.call(
                member.transport, Operation.READY, {}, timeout_s, self._headers_of({})
            )
        except DeadlineError as error:  # of the trial, not of the request
            raise UnavailableError("refused", str(error)) from error
        if not ready:
            raise UnavailableError("refused", f"{member.transport.address}: not ready yet")

    # Everything else

    async def spec(self, model: str, version: str, deadline: Deadline) -> ModelSpec:
        """The model's metadata and config, asked for once and then kept."""
        known = self._specs.get((model, version))
        if known is not None:
            return known
        if not await self._io.acquire(deadline.left_s(model)):
            deadline.left_s(model)
            raise DeadlineError("timeout", f"{model}: its metadata did not come in time")
        try:
            known = self._specs.get((model, version))
            if known is None:
                which = {"model": model, "version": version}
                metadata = await self.ask(Operation.METADATA, which, deadline)
                config = await self.ask(Operation.CONFIG, which, deadline)
                known = self._specs[model, version] = read_spec(metadata, config, version)
            return known
        finally:
            self._io.release()

    async def ask(
        self, operation: Operation, arguments: Mapping[str, Any], deadline: Deadline
    ) -> Any:
        """Carry out an operation on the server whose turn it is."""

        async def send(member: Member) -> Any:
            left_s = deadline.left_s(member.transport.address)
            return await self._call(member, operation, arguments, left_s)

        return await self._deliver(send, deadline, str(arguments.get("model", "")))

    async def ask_all(
        self, operation: Operation, arguments: Mapping[str, Any], deadline: Deadline
    ) -> Any:
        """Carry it out on every server; the last answer. The first failure ends it."""
        answer = None
        try:
            for member in self.pool.members:
                left_s = deadline.left_s(member.transport.address)
                answer = await self._call(member, operation, arguments, left_s)
        finally:
            if operation in (Operation.LOAD, Operation.UNLOAD):
                self._specs.clear()  # it may be another model now, and so may its dependents
        return answer

    async def load(
        self,
        model: str,
        config: Mapping[str, Any] | None,
        files: Mapping[str, bytes] | None,
        deadline: Deadline,
    ) -> None:
        """See `Client.load`."""
        if files and config is None:
            raise InputError(f"{model}: files need a config too; give config={{...}}")
        try:
            text = None if config is None else json.dumps(config, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InputError(f"{model}: a config that JSON cannot hold: {error}") from error
        arguments = {"model": model, "config": text, "files": dict(files or {})}
        await self.ask_all(Operation.LOAD, arguments, deadline)

    async def holds(
        self, operation: Operation, arguments: Mapping[str, Any], deadline: Deadline
    ) -> bool:
        """Whether any server answers yes; one that cannot be reached does not."""
        members = self.pool.members
        for i, member in enumerate(members):
            with suppress(UnavailableError, DeadlineError):
                left_s = deadline.left_s(member.transport.address)
                if left_s is not None:  # a silent server leaves time for those after it
                    left_s /= len(members) - i
                if await self._call(member, operation, arguments, left_s):
                    return True
        return False

    async def wait_until_ready(self, model: str, version: str, timeout_s: float) -> None:
        """Ask again and again, up to ten times a second. DeadlineError if it never is."""
        what = model or "the server"
        deadline = Deadline(timeout_s)
        operation = Operation.MODEL_READY if model else Operation.READY
        arguments = {"model": model, "version": version} if model else {}
        while True:
            left_s = deadline.left_s(f"{what} at {self.addresses()} is not ready")
            if await self.holds(operation, arguments, Deadline(min(left_s or _ASK_S, _ASK_S))):
                return
            self._require_open()
            await self._io.sleep(min(0.1, left_s or 0.1))

    def addresses(self) -> str:
        """All servers, for people."""
        return ", ".join(m.transport.address for m in self.pool.members)

    async def _call(
        self,
        member: Member,
        operation: Operation,
        arguments: Mapping[str, Any],
        timeout_s: float | None,
    ) -> Any:
        self._require_open()
        headers = self._headers_of({})
        return await self._io.call(member.transport, operation, arguments, timeout_s, headers)

    def _require_open(self) -> None:
        if self._closed:
            raise UnavailableError("closed", "the client is closed")

    async def close(self) -> None:
        """Unregister and remove the shared memory, and close the connections."""
        if self._closed:
            return
        if self._memory is not None:
            await self._memory.close()
        self._closed = True
        for member in self.pool.members:
            await self._io.close(member.transport)

    # Small things

    def _headers_of(self, more: Mapping[str, str]) -> Mapping[str, str]:
        own = self._headers() if callable(self._headers) else self._headers
        return {**own, **more} if more else own

    def _tell(self, event: Event) -> None:
        if self._hooks:
            emit(self._hooks, event)

    def _tell_ended(
        self,
        request: InferRequest,
        rows: int,
        member: Member,
        tries: int,
        started_s: float,
        error: RequestError | None,
    ) -> None:
        self._tell(
            RequestEnded(
                model=request.model,
                version=request.version,
                address=member.transport.address,
                rows=rows,
                tries=tries,
                latency_s=time.perf_counter() - started_s,
                error=error.kind if error is not None else "",
                request_id=request.id,
            )
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
