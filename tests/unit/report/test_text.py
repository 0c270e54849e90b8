"""Facts about the terminal report."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from tritonkit.report.text import render_text

Result = dict[str, Any]


def _lines(result: Result) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=80, color_system=None).print(render_text(result))
    return out.getvalue().splitlines()


@pytest.mark.parametrize("name", ["ranker", "file_type", "none"])
def test_fits_80_columns_with_no_number_cut(name: str, request: pytest.FixtureRequest) -> None:
    """No line is wider than 80 columns, and rich shortened nothing to an ellipsis."""
    lines = _lines(request.getfixturevalue(name))
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)


def test_large_numbers_still_fit(ranker: Result) -> None:
    """Six-digit rates and times leave every cell whole."""
    for level in ranker["arms"][2]["levels"]:
        for key in ("achieved_rps", "offered"):
            level[key] *= 200
        for key in ("p50_ms", "p90_ms", "p99_ms"):
            level[key] *= 3000
        level["holds_slo"] = True
    ranker["arms"][2]["capacity_rps"] *= 200
    lines = _lines(ranker)
    assert "…" not in "".join(lines)
    assert sum("640,800" in line for line in lines) == 2


def test_verdict_is_first(file_type: Result) -> None:
    """The first line is the headline."""
    assert _lines(file_type)[0] == "Keep the single ONNX Runtime session for file_type"


def test_every_arm_and_level_is_listed(ranker: Result) -> None:
    """There is one line per arm and one per level."""
    lines = _lines(ranker)
    assert sum(" user" in line or " rps " in line for line in lines) >= 27
    for arm in ("ONNX Runtime", "Triton plain", "Triton batched"):
        assert sum(line.startswith(arm) for line in lines) == 2


def test_a_repeat_says_again(ranker: Result) -> None:
    """Each arm's second run of its deciding level is marked in words."""
    assert sum(line.rstrip().endswith("; again") for line in _lines(ranker)) == 3


def test_chosen_arm_is_starred(ranker: Result) -> None:
    """The choice is marked by a character, not only by weight."""
    assert any(line.startswith("Triton batched *") for line in _lines(ranker))


def test_brackets_are_not_markup(none: Result) -> None:
    """Square brackets in a model's name are printed as they are."""
    assert "[red]large[/red]" in "".join(_lines(none))


def test_an_empty_result_prints() -> None:
    """Every key may be missing."""
    assert _lines({})[0] == "Verdict for —: —"
