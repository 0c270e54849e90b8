"""What a server has, for whoever asked for a model that it has not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from tritonkit.cli.lines import printable
from tritonkit.errors import NotFoundError, TritonkitError, request_error

if TYPE_CHECKING:
    from tritonkit.client.client import Client

_MOST = 20


@contextmanager
def naming_models(client: Client) -> Iterator[None]:
    """The error of an unknown model also says which the server has, if that can be found out."""
    try:
        yield
    except NotFoundError as error:
        known = ""
        # The first error is what counts, whatever becomes of this question.
        with suppress(TritonkitError, KeyError, TypeError, AttributeError):
            known = f"; the server has {_names(client)}"
        raise request_error(error.kind, f"{error}{known}") from error


def _names(client: Client) -> str:
    """The names; of many the first, and how many more."""
    ready: dict[str, bool] = {}
    for model in client.models():
        name = printable(str(model["name"]))
        ready[name] = ready.get(name, False) or model["state"] == "READY"
    names = [name if ready[name] else f"{name} (not ready)" for name in sorted(ready)]
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more or "no models"
