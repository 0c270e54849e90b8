"""Manners of foreign code: what exporters, loaders and users' modules print and raise."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from types import FrameType

_LOGGERS = ("torch", "torch.onnx", "torch.export", "onnxscript", "onnx_ir", "transformers")


@contextmanager
def quiet() -> Iterator[None]:
    """Drop prints, progress bars, warnings and log records below ERROR while inside.

    Exceptions pass through; Ctrl-C is a KeyboardInterrupt whatever foreign code makes of it, such
    as an import that was cut short and then fails as a missing name. Not for use in threads: the
    streams and the warning filters belong to the whole process.
    """
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    try:
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        with (
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
            _descriptors_closed(),
            heeding_interrupts(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def heeding_interrupts() -> Iterator[None]:
    """Let no code inside lose a Ctrl-C: KeyboardInterrupt at the end if there was one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, heard = signal.getsignal(signal.SIGINT), False

    def hear(signum: int, frame: FrameType | None) -> None:
        nonlocal heard
        heard = True
        if callable(before):
            before(signum, frame)

    signal.signal(signal.SIGINT, hear)
    try:
        yield
    except Exception as error:
        if heard:
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, before)
    if heard and before is not signal.SIG_IGN:
        raise KeyboardInterrupt


@contextmanager
def _descriptors_closed() -> Iterator[None]:
    """Drop also what C++ code writes to stdout and stderr, such as a graph it cannot export."""
    for stream in (sys.__stdout__, sys.__stderr__):
        if stream is not None and not stream.closed:
            stream.flush()
    kept = {}
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for descriptor in (1, 2):
            with suppress(OSError):  # closed already
                kept[descriptor] = os.dup(descriptor)
                os.dup2(nowhere, descriptor)
        yield
    finally:
        for descriptor, original in kept.items():
            os.dup2(original, descriptor)
            os.close(original)
        os.close(nowhere)
