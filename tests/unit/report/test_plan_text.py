"""Facts about the terminal report of a plan."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from tritonkit.report.plan_text import render_plan_text

Document = dict[str, Any]


def _lines(document: Document, width: int = 80) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(render_plan_text(document))
    return out.getvalue().splitlines()


def test_the_conclusion_is_first(planned: Document) -> None:
    """What to do, with which settings, and why."""
    lines = _lines(planned)
    assert lines[0] == "Serve ranker with Triton and dynamic batching"
    assert lines[1].startswith("batch 64, delay 2\N{NO-BREAK SPACE}ms")
    assert lines[2].rstrip() == planned["because"]


def test_fits_80_columns_with_no_number_cut(planned: Document) -> None:
    """No line is wider than 80 columns, even with seven-digit rates, and nothing is shortened."""
    for entry in planned["tried"]:
        entry["measured"]["capacity_rps"] *= 500
        entry["predicted"]["capacity_rps"] *= 500
    lines = _lines(planned)
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    assert any("1,250,000" in line for line in lines)


def test_predicted_stands_beside_measured(planned: Document) -> None:
    """One line for the capacity, one for the p99, and a sentence for the one that missed."""
    lines = _lines(planned)
    capacity = next(line for line in lines if line.startswith("Capacity, requests/s"))
    assert capacity.split()[2:5] == ["2,400", "2,500", "2,300–2,700"]
    p99 = next(line for line in lines if line.startswith("p99 at 1,750"))
    assert p99.split()[5:7] == ["20.0", "30.0"]
    assert any("was predicted 33" in line for line in lines)


def test_all_that_was_tried_has_a_line(planned: Document) -> None:
    """The winner's has a star; what is not known is a dash."""
    lines = [line.split() for line in _lines(planned)]
    assert ["batch", "64,", "delay", "2", "ms", "*"] in [line[:6] for line in lines]
    plain = next(line for line in lines if line[:2] == ["no", "batching"])
    assert plain == ["no", "batching", "2×1", "480", "470", "—", "—", "—"]


def test_brackets_are_not_markup(planned: Document) -> None:
    """Square brackets of the document are printed as they are."""
    planned |= {"model": "[red]a[/red]", "because": "[bold]so[/bold]"}
    planned["winner"]["max_queue_delay_us"] = None
    text = "".join(_lines(planned))
    assert "[red]a[/red]" in text and "[bold]so[/bold]" in text


def test_an_empty_plan_prints() -> None:
    """Every key may be missing."""
    assert _lines({})[0] == "Plan for —: —"
