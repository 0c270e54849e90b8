"""What a client asks of its servers besides inference: what they have, and what they are to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from tritonkit.client.calls import Calls
from tritonkit.client.deadline import Deadline
from tritonkit.client.operations import Operation
from tritonkit.client.spec import ModelSpec, read_spec
from tritonkit.errors import DeadlineError, InputError, ProtocolError, UnavailableError

# How long a server may take to say whether it is ready, before it is asked anew.
_ASK_S = 5.0


class Control:
    """One client's view of its servers' models. What it has learnt of a model it keeps."""

    def __init__(self, calls: Calls):
        self._calls = calls
        self._specs: dict[tuple[str, str], ModelSpec] = {}

    def known(self, model: str, version: str) -> ModelSpec | None:
        """The model, if it has been asked for before."""
        return self._specs.get((model, version))

    def forget(self, model: str, version: str) -> None:
        """Ask anew the next time: it may have been loaded anew, and be another."""
        self._specs.pop((model, version), None)

    async def spec(self, model: str, version: str, deadline: Deadline) -> ModelSpec:
        """The model's metadata and config, asked for once and then kept."""
        known = self._specs.get((model, version))
        if known is not None:
            return known
        if not isinstance(model, str) or not model:
            raise InputError(f"a model's name is text, not {model!r}")
        if not await self._calls.io.acquire(deadline.left_s(model)):
            deadline.left_s(model)
            raise DeadlineError("timeout", f"{model}: its metadata did not come in time")
        try:
            known = self._specs.get((model, version))
            if known is None:
                which = {"model": model, "version": version}
                metadata = await self._calls.ask(Operation.METADATA, which, deadline)
                config = await self._calls.ask(Operation.CONFIG, which, deadline)
                known = self._specs[model, version] = read_spec(metadata, config, version)
            return known
        finally:
            self._calls.io.release()

    async def ask_all(
        self, operation: Operation, arguments: Mapping[str, Any], deadline: Deadline
    ) -> Any:
        """Carry it out on every server; the last answer. The first failure ends it."""
        answer = None
        try:
            for member in self._calls.pool.members:
                left_s = deadline.left_s(member.transport.address)
                answer = await self._calls.call(member, operation, arguments, left_s)
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
        members = self._calls.pool.members
        for i, member in enumerate(members):
            with suppress(UnavailableError, DeadlineError, ProtocolError):
                left_s = deadline.left_s(member.transport.address)
                if left_s is not None:  # a silent server leaves time for those after it
                    left_s /= len(members) - i
                if await self._calls.call(member, operation, arguments, left_s):
                    return True
        return False

    async def wait_until_ready(self, model: str, version: str, timeout_s: float) -> None:
        """Ask again and again, up to ten times a second. DeadlineError if it never is."""
        what = model or "the server"
        deadline = Deadline(timeout_s)
        operation = Operation.MODEL_READY if model else Operation.READY
        arguments = {"model": model, "version": version} if model else {}
        while True:
            left_s = deadline.left_s(f"{what} at {self._calls.addresses()} is not ready")
            if await self.holds(operation, arguments, Deadline(min(left_s or _ASK_S, _ASK_S))):
                return
            self._calls.require_open()
            await self._calls.io.sleep(min(0.1, left_s or 0.1))
