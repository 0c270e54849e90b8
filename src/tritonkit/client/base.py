"""How the two clients are made, and what a call's options are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from tritonkit.client.address import Address
from tritonkit.client.calls import Calls
from tritonkit.client.connect import Token, check_options, each_address, every_request
from tritonkit.client.control import Control
from tritonkit.client.deadline import ClientTimeout, Deadline, Timeout
from tritonkit.client.events import Hook
from tritonkit.client.inference import Inference, Options, SequencePart
from tritonkit.client.io import IO, AsyncIO
from tritonkit.client.placement import SharedMemory
from tritonkit.client.retry import Retries
from tritonkit.client.transport import Compression, Parameter, Tls


class ClientBase:
    """What `Client` and `AsyncClient` share. Its parameters are theirs."""

    def __init__(
        self,
        io: IO,
        address: str | Sequence[str],
        transport: Any,
        connect: Callable[[Address, Tls | None, Compression | None], Any],
        *,
        timeout_s: float | None,
        retries: Retries,
        tls: Tls | None,
        token: Token | None,
        headers: Mapping[str, str] | None,
        compression: Compression | None,
        shared_memory: SharedMemory,
        nan: Literal["send", "refuse"],
        hooks: Sequence[Hook],
    ):
        check_options(
            retries=retries,
            compression=compression,
            shared_memory=shared_memory,
            nan=nan,
            hooks=hooks,
            transport=transport,
            asynchronous=isinstance(io, AsyncIO),
        )
        Deadline(timeout_s)  # refuses what is none
        transports: Sequence[Any]
        if transport is not None:
            transports = (transport,)
        else:
            transports = each_address(address, lambda a: connect(a, tls, compression))
        self._timeout_s = timeout_s
        self._calls = Calls(transports, io, retries, every_request(headers, token), hooks)
        self._control = Control(self._calls)
        self._inference = Inference(
            self._calls, self._control, shared_memory=shared_memory, nan=nan
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._calls.addresses()}>"

    def _options(
        self,
        version: str,
        outputs: Sequence[str],
        classes: int,
        id: str,
        priority: int,
        sequence: SequencePart | None,
        parameters: Mapping[str, Parameter] | None,
        headers: Mapping[str, str] | None,
        timeout_s: Timeout,
    ) -> Options:
        timeout = self._timeout_s if isinstance(timeout_s, ClientTimeout) else timeout_s
        return Options(
            str(version),
            (outputs,) if isinstance(outputs, str) else outputs,
            classes,
            id,
            priority,
            sequence,
            parameters or {},
            headers or {},
            timeout,
        )

    def _deadline(self, timeout_s: Timeout) -> Deadline:
        return Deadline(self._timeout_s if isinstance(timeout_s, ClientTimeout) else timeout_s)
