"""The client, blocking. `async_client` has its twin."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, Literal, Self

from tritonkit.client.base import ClientBase
from tritonkit.client.connect import Token, blocking_transport
from tritonkit.client.deadline import CLIENT_TIMEOUT, Timeout
from tritonkit.client.events import Hook
from tritonkit.client.inference import SequencePart
from tritonkit.client.io import BlockingIO, run
from tritonkit.client.operations import Operation
from tritonkit.client.pending import Pending, in_order
from tritonkit.client.placement import SharedMemory
from tritonkit.client.result import InferResult
from tritonkit.client.retry import Retries
from tritonkit.client.spec import ModelSpec
from tritonkit.client.transport import Cancellation, Compression, Parameter, Tls, Transport
from tritonkit.client.values import owned
from tritonkit.errors import UnavailableError

# Threads that `submit` may use at once; what is submitted beyond that waits its turn.
_SUBMIT_THREADS = 64


class Client(ClientBase):
    """Calls models on a Triton server, or on several that serve the same models.

    Safe to share between threads and greenlets. One for the whole program is best: it keeps
    connections, and what it knows of the models. Close it, or use it as a context manager.

    address: `grpc://host:8001`, `http://host:8000`, `grpcs://`, `https://`, or a bare host:port,
    which is gRPC. Of several, requests go round those that work.
    timeout_s: for each call, with all its tries and parts; None waits for ever.
    retries: what is tried again; NO_RETRIES for nothing.
    tls: certificates, where the system's own will not do, or for mutual TLS.
    token: sent as a bearer token; a function is asked for it before each request.
    headers: sent with each request. compression: of requests, and asked for in answers.
    shared_memory: whether large tensors go through system shared memory. "auto": where the address
    is one of this machine and the server agrees.
    nan: "refuse" raises TensorError for NaN or infinity in an input.
    hooks: functions that are given each event (`tritonkit.client.events`) as it happens.
    transport: how to send, in place of an address: in a test, a FakeTransport.

    Every method raises InputError (for tensors: TensorError) if what it is given cannot be used,
    and the subclass of RequestError that says what happened if a request fails.

    >>> from tritonkit import Client
    >>> from tritonkit.client.fake import FakeModel, FakeTransport
    >>> twice = FakeModel(["x:FP32[-1,2]"], ["y:FP32[-1,2]"], 8, lambda x: {"y": x + x})
    >>> client = Client(transport=FakeTransport({"twice": twice}))
    >>> client.infer("twice", [[1, 2], [3, 4]])["y"].tolist()
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
        transport: Transport | None = None,
    ):
        super().__init__(
            BlockingIO(),
            address,
            transport,
            blocking_transport,
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
        self._lock = threading.Lock()
        self._workers: ThreadPoolExecutor | None = None
        self._closed = False

    # Inference

    def infer(
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
        """Run a model on one or more rows and return its outputs, as numpy arrays by name.

        inputs: the value of the only input, or a mapping of input names to values. tensors: the
        same by keyword; an input with the name of an option has to go into the mapping. Values:
        anything array-like in the model's dtype (numpy, lists, torch on the CPU, DLPack, str and
        bytes), with the batch axis; without it in all inputs it is one row, and the outputs come
        without it too. More rows than the model takes at once are sent in parts, and joined. The
        outputs are read-only views of the answer; `.copy()` them to change them.

        version: of the model; empty for the server's choice. outputs: which; empty for all.
        classes: ask for so many top classes instead of each output; see `Classification`.
        id: comes back in the result, and stands in the server's log. priority: for the server's
        queue; 1 is the highest, 0 the model's default. sequence: for models that keep state.
        parameters, headers: of this request, besides the client's. timeout_s: in place of the
        client's; the server is told of it too.

        >>> client.infer("ranker", [0.5, 0.25])["score"].tolist()
        [0.75]
        """
        options = self._options(
            *(version, outputs, classes, id, priority, sequence, parameters, headers, timeout_s)
        )
        return run(self._inference.infer(model, inputs, tensors, options))

    def submit(
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
    ) -> Pending:
        """As `infer`, but in the background: returns at once what can be waited for or given up.

        >>> client.submit("ranker", [0.5, 0.25]).result()["score"].tolist()
        [0.75]
        """
        options = self._options(
            *(version, outputs, classes, id, priority, sequence, parameters, headers, timeout_s)
        )

        inputs, tensors = owned(inputs), owned(tensors)

        def send(cancellation: Cancellation) -> InferResult:
            return run(self._inference.infer(model, inputs, tensors, options, cancellation))

        with self._lock:
            if self._closed:
                raise UnavailableError("closed", "the client is closed")
            if self._workers is None:
                self._workers = ThreadPoolExecutor(_SUBMIT_THREADS, "tritonkit-submit")
            return Pending(self._workers, send)

    def map(
        self,
        model: str,
        items: Iterable[Any],
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
    ) -> Iterator[InferResult]:
        """One request for each item, several at a time; yields the results in the items' order.

        items: each what `infer` takes as `inputs`. They are read as they are needed, and at most
        max_in_flight of them are held, so a stream of any length fits. progress: is told the
        number of requests that have been answered. timeout_s: for each request. The first failure
        is raised and gives up what is under way; so does leaving the loop.

        >>> rows = [[0.5, 0.25], [1.0, 2.0]]
        >>> [result["score"].item() for result in client.map("ranker", rows)]
        [0.75, 3.0]
        """
        options = self._options(
            *(version, outputs, classes, "", priority, None, parameters, headers, timeout_s)
        )

        def send(item: Any, cancellation: Cancellation) -> InferResult:
            return run(self._inference.infer(model, item, {}, options, cancellation))

        return in_order(items, send, max_in_flight, progress)

    def stream(
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
    ) -> Iterator[InferResult]:
        """Run a model that answers a request any number of times; yields answers as they come.

        As `infer`; needs gRPC. timeout_s: for the whole stream. Leaving the loop cancels the
        request on the server. A stream is not tried again. If it ends in an error, gRPC drops the
        answers before it that were not read yet.

        >>> [result["n"].item() for result in client.stream("countdown", [3])]
        [2, 1, 0]
        """
        options = self._options(
            *(version, outputs, 0, id, priority, sequence, parameters, headers, timeout_s)
        )
        opened = run(self._inference.open_stream(model, inputs, tensors, options))

        def results() -> Iterator[InferResult]:
            with opened.watched(), closing(opened.answers()) as answers:
                for response in answers:
                    yield opened.read(response)

        return results()

    # What the server has

    def spec(
        self, model: str, *, version: str = "", timeout_s: Timeout = CLIENT_TIMEOUT
    ) -> ModelSpec:
        """What the model takes and gives, and how many rows at once. Asked for once, then kept.

        >>> print(client.spec("ranker"))
        ranker: x:FP32[dim_0,2] -> score:FP32[dim_0,1], up to 8 rows a request
        """
        return run(self._control.spec(model, version, self._deadline(timeout_s)))

    def config(
        self, model: str, *, version: str = "", timeout_s: Timeout = CLIENT_TIMEOUT
    ) -> dict[str, Any]:
        """The config that the server runs the model with, after its own defaults.

        >>> client.config("ranker")["max_batch_size"]
        8
        """
        return self._ask(Operation.CONFIG, timeout_s, model=model, version=version)  # type: ignore[no-any-return]

    def statistics(
        self, model: str = "", *, version: str = "", timeout_s: Timeout = CLIENT_TIMEOUT
    ) -> list[dict[str, Any]]:
        """The statistics extension's counters, one record for each loaded model and version.

        model: empty for all. Of several servers, those of one. Durations are in ns.

        >>> client.statistics("ranker")[0]["inference_count"] > 0
        True
        """
        answer = self._ask(Operation.STATISTICS, timeout_s, model=model, version=version)
        return list(answer["model_stats"])

    def server(self, *, timeout_s: Timeout = CLIENT_TIMEOUT) -> dict[str, Any]:
        """The server's `name`, `version` and `extensions`.

        >>> sorted(client.server())
        ['extensions', 'name', 'version']
        """
        return self._ask(Operation.SERVER, timeout_s)  # type: ignore[no-any-return]

    def models(
        self, *, ready: bool = False, timeout_s: Timeout = CLIENT_TIMEOUT
    ) -> list[dict[str, Any]]:
        """What the model repository holds: `name`, `version`, `state` and `reason` of each.

        ready: only what can be called.

        >>> sorted(model["name"] for model in client.models())
        ['countdown', 'ranker']
        """
        return self._ask(Operation.INDEX, timeout_s, ready=ready)  # type: ignore[no-any-return]

    # Whether it can be called

    def is_live(self, *, timeout_s: Timeout = CLIENT_TIMEOUT) -> bool:
        """Whether a server runs; False also if none can be reached.

        >>> client.is_live()
        True
        """
        return run(self._control.holds(Operation.LIVE, {}, self._deadline(timeout_s)))

    def is_ready(
        self, model: str = "", *, version: str = "", timeout_s: Timeout = CLIENT_TIMEOUT
    ) -> bool:
        """Whether the model, or without one the server, can be called on at least one address.

        >>> client.is_ready("ranker"), client.is_ready("no such model")
        (True, False)
        """
        operation = Operation.MODEL_READY if model else Operation.READY
        which = {"model": model, "version": version} if model else {}
        return run(self._control.holds(operation, which, self._deadline(timeout_s)))

    def wait_until_ready(
        self, model: str = "", *, version: str = "", timeout_s: float = 60.0
    ) -> None:
        """Return when `is_ready` holds. DeadlineError if it does not within timeout_s.

        >>> client.wait_until_ready("ranker")
        """
        run(self._control.wait_until_ready(model, version, timeout_s))

    # Control, on every server

    def load(
        self,
        model: str,
        *,
        config: Mapping[str, Any] | None = None,
        files: Mapping[str, bytes] | None = None,
        timeout_s: Timeout = CLIENT_TIMEOUT,
    ) -> None:
        """Load a model, or load it anew. The server must allow it (model control mode explicit).

        config: in place of its config.pbtxt, with the same fields. files: its files by path, such
        as `1/model.onnx`, in place of those of the repository; they need a config too.

        >>> client.load("ranker")
        """
        run(self._control.load(model, config, files, self._deadline(timeout_s)))

    def unload(
        self, model: str, *, dependents: bool = False, timeout_s: Timeout = CLIENT_TIMEOUT
    ) -> None:
        """Unload a model; dependents: also those that only it, an ensemble, needed.

        Let it rest for some tenths of a second first: Triton 2.51 may crash if it unloads a model
        in the moment after an answer, while the model's thread has not yet come back for the next
        request.

        >>> client.unload("countdown")
        >>> client.is_ready("countdown")
        False
        """
        self._ask_all(Operation.UNLOAD, timeout_s, model=model, unload_dependents=dependents)

    def trace_settings(
        self,
        model: str = "",
        *,
        change: Mapping[str, Any] | None = None,
        timeout_s: Timeout = CLIENT_TIMEOUT,
    ) -> dict[str, Any]:
        """The trace settings of a model, or the server's; after the change if there is one.

        change: setting → value, list of values, or None for the server's own.

        >>> client.trace_settings(change={"trace_rate": "500"})["trace_rate"]
        '500'
        """
        return self._ask_all(Operation.TRACE, timeout_s, model=model, settings=dict(change or {}))  # type: ignore[no-any-return]

    def log_settings(
        self, *, change: Mapping[str, Any] | None = None, timeout_s: Timeout = CLIENT_TIMEOUT
    ) -> dict[str, Any]:
        """The server's log settings; after the change if there is one.

        >>> client.log_settings(change={"log_verbose_level": 1})["log_verbose_level"]
        1
        """
        return self._ask_all(Operation.LOG, timeout_s, settings=dict(change or {}))  # type: ignore[no-any-return]

    # Its own life

    def close(self) -> None:
        """Wait for what was submitted, then close all connections. A second time does nothing.

        >>> client.close()
        """
        with self._lock:
            self._closed = True
        if self._workers is not None:
            self._workers.shutdown()
        run(self._inference.close())
        run(self._calls.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # Of use to the above

    def _ask(self, operation: Operation, timeout_s: Timeout, **arguments: Any) -> Any:
        return run(self._calls.ask(operation, arguments, self._deadline(timeout_s)))

    def _ask_all(self, operation: Operation, timeout_s: Timeout, **arguments: Any) -> Any:
        return run(self._control.ask_all(operation, arguments, self._deadline(timeout_s)))
