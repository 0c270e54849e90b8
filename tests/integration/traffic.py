"""Callers of a live server, and the rest that its models need before they go."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from tritonkit import Client


@contextmanager
def calling(
    url: str,
    model: str,
    value: np.ndarray,
    *,
    callers: int = 2,
    pause_s: float = 0.0,
    **settings: Any,
) -> Iterator[None]:
    """Callers that ask one request after the other, as long as the block runs; none may fail.

    settings: of their clients.
    """
    over = threading.Event()

    def call() -> None:
        with Client(url, **settings) as client:
            while not over.is_set():
                client.infer(model, value)
                over.wait(pause_s)

    with ThreadPoolExecutor(callers) as pool:
        calls = [pool.submit(call) for _ in range(callers)]
        try:
            yield
        finally:
            over.set()
    for done in calls:
        done.result()


def rest() -> None:
    """Between a model's last answer and its unloading: see `Client.unload`."""
    time.sleep(0.2)
