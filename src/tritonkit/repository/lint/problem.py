"""What lint says: rules, what a rule finds, and what becomes of that in a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tritonkit.repository.lint.entry import Entry


class Severity(StrEnum):
    """error: the server refuses it, or serves something wrong. warning: its user regrets it.
    note: worth knowing.
    """

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """What a rule found. message: the fact. why: what comes of it. remedy: what to do.

    line: in config.pbtxt, counted from 1.
    """

    line: int
    message: str
    why: str
    remedy: str


@dataclass(frozen=True)
class Rule:
    """One thing that lint looks for, in one model's folder."""

    id: str
    severity: Severity
    find: Callable[[Entry], Iterable[Finding]]

    @property
    def summary(self) -> str:
        """What it looks for, in one line: the first of its function's docstring."""
        return (self.find.__doc__ or "").partition("\n")[0]


@dataclass(frozen=True)
class Problem:
    """A finding under its rule's name, in its file."""

    file: Path
    line: int
    rule: str
    severity: Severity
    message: str
    why: str
    remedy: str
