"""Names for parameters."""

from __future__ import annotations

import re


def by_repr(value: object) -> str:
    """`repr` without addresses: each process of a parallel run must find the same names."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))
