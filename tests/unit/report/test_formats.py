"""Facts about numbers as people read them."""

from __future__ import annotations

import pytest

from tritonkit.report import formats
from tritonkit.report.charts.figure import thousands

NBSP = formats.NBSP


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (694.444, "694"),
        (20_000.0, "20,000"),
        (123_456, "123,456"),
        (123_456.7, "123,500"),
        (5_454_281.3, "5,454,000"),
        (12_345_678, "12,350,000"),
        (3.2e11, "320 billion"),
        (9.99e17, "999 quadrillion"),
        (99.96, "100.0"),
        (12.34, "12.3"),
        (2.5, "2.50"),
        (0.5, "0.50"),
        (0.0123, "0.012"),
        (1.5e-6, "0.0000015"),
        (-2.5, "-2.50"),
        (0.0, "0"),
        (-0.0, "0"),
        (None, formats.DASH),
    ],
)
def test_numbers_in_text_are_short_and_have_no_exponent(value: float | None, shown: str) -> None:
    """Three or four digits count; whole numbers that a user gave stay whole."""
    assert formats.compact(value) == shown


def test_a_rounded_nothing_has_no_sign() -> None:
    """What rounds to 0 from below is 0."""
    assert formats.fixed(-0.001, 2) == "0.00"


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0, f"0{NBSP}%"), (0.0003, f"<0.1{NBSP}%"), (0.0006, f"0.1{NBSP}%"), (0.5, f"50{NBSP}%")],
)
def test_a_small_share_is_not_none(share: float, shown: str) -> None:
    """Only nothing is 0 %: one error in thousands is not."""
    assert formats.percent(share) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(102.5, "102.5"), (107.5, "107.5"), (0.3 - 0.1, "0.2"), (1e-5, "0.00001"), (2e6, "2,000,000")],
)
def test_ticks_keep_the_decimals_that_tell_them_apart(value: float, shown: str) -> None:
    """A tick is neither rounded onto its neighbour nor written with an exponent."""
    assert thousands(value) == shown
