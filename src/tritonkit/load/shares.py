"""A distribution over sizes, of which a run's requests have so many each: rows, lengths."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tritonkit.errors import InputError

_PART = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?(?::([0-9]{0,9}\.?[0-9]{1,9}))?")


@dataclass(frozen=True)
class Shares:
    """Sizes, and how often each is wanted: (least, most, share), where all from least to most are
    equally likely and the shares add up to 1.
    """

    parts: tuple[tuple[int, int, float], ...]

    @property
    def most(self) -> int:
        """The largest size."""
        return max(high for _, high, _ in self.parts)

    @property
    def enough(self) -> int:
        """With so many draws each part has at least one."""
        return math.ceil(1 / min(share for _, _, share in self.parts))

    def draw(self, count: int, random: np.random.Generator) -> list[int]:
        """`count` sizes in random order; of each part as many as its share says, give or take one.

        Independent draws would miss the shares by more, and a run sends its requests again and
        again: it would keep what chance made of them.
        """
        ends = list(itertools.accumulate(share for _, _, share in self.parts))
        points = (np.arange(count) + random.random()) / count
        chosen = np.searchsorted(ends[:-1], points, side="right")
        sizes = []
        for point, part in zip(points.tolist(), chosen.tolist(), strict=True):
            low, high, share = self.parts[part]
            into = (point - ends[part] + share) / share
            sizes.append(min(max(low + int(into * (high - low + 1)), low), high))
        return [sizes[i] for i in random.permutation(count)]

    def left_out(self, sizes: Sequence[int]) -> list[str]:
        """The parts that none of `sizes` is in: `8`, `16-128`."""
        return [
            _range(low, high)
            for low, high, _ in self.parts
            if not any(low <= size <= high for size in sizes)
        ]


def parse_shares(text: str, option: str) -> Shares:
    """`1:0.8,8:0.2`, `16-128`, `8` → the sizes and their shares, which are made to add up to 1.

    option: what the user calls them, such as `--rows`. InputError if it is something else.
    """
    matches = [_PART.fullmatch(part) for part in text.split(",")]
    parts = [
        (int(m[1]), int(m[2] or m[1]), 1.0 if m[3] is None else float(m[3])) for m in matches if m
    ]
    if len(parts) < len(matches):
        raise InputError(
            f"{option}: {text!r:.80} is no distribution of sizes; give them with their shares, "
            "such as 1:0.8,8:0.2, or a range, such as 16-128"
        )
    if len({match[3] is None for match in matches if match}) > 1:
        raise InputError(f"{option}: {text!r:.80} gives some sizes a share and others none")
    for low, high, share in parts:
        if not (1 <= low <= high and share > 0):
            raise InputError(
                f"{option}: {_range(low, high)}:{share:g} cannot be; sizes are from 1 up, and "
                "shares above 0"
            )
    total = math.fsum(share for _, _, share in parts)
    return Shares(tuple((low, high, share / total) for low, high, share in parts))


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low}-{high}"
