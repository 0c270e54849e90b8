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


def _part(lines: list[str], title: str) -> list[str]:
    """The lines of one part, from its title to the next empty line."""
    start = next(i for i, line in enumerate(lines) if line.startswith(title))
    rest = [line.rstrip() for line in lines[start:]]
    return rest[: rest.index("")] if "" in rest else rest


@pytest.mark.parametrize("name", ["ranker", "file_type", "none", "old"])
def test_fits_80_columns_with_no_number_cut(name: str, request: pytest.FixtureRequest) -> None:
    """No line is wider than 80 columns, and rich shortened nothing to an ellipsis."""
    lines = _lines(request.getfixturevalue(name))
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)


def test_large_numbers_still_fit(ranker: Result) -> None:
    """Seven-digit rates and times leave every cell whole."""
    for arm in ranker["arms"]:
        arm["capacity_rps"] *= 500
        arm["capacity_interval_rps"][0] *= 500
        for level in arm["levels"]:
            for key in ("achieved_rps", "offered", "p99_ms"):
                level[key] *= 500
    lines = _lines(ranker)
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    assert sum("2,687,000" in line for line in lines) == 1


def test_verdict_is_first_with_its_ratio(file_type: Result) -> None:
    """The first lines are what to do and the ratio that it rests on."""
    lines = _lines(file_type)
    assert lines[0] == "Keep the single ONNX Runtime session for file_type"
    assert lines[1].startswith("1.01× (95")


def test_each_arm_has_its_capacity_and_interval(ranker: Result) -> None:
    """There is one line for each arm, with its interval; the choice has a star."""
    part = _part(_lines(ranker), "Capacity")
    assert len(part) == 7
    assert "754\N{EN DASH}824" in part[3]
    assert part[6].startswith("Triton batched *") and "5,159 or more" in part[6]


def test_each_ratio_has_its_interval_and_finding(file_type: Result) -> None:
    """Every pair is a line that ends with what was found."""
    part = _part(_lines(file_type), "Ratios")
    assert len(part) == 6
    assert all(line.endswith("no difference") for line in part[3:])
    assert "0.93\N{EN DASH}1.05×" in part[4]


def test_demand_has_replicas_and_cost(ranker: Result) -> None:
    """A wanted rate has a line for each arm, with a cost only where a price was given."""
    assert _part(_lines(ranker), "At 2,000")[3].split() == (
        ["ONNX", "Runtime", "no", "\N{MINUS SIGN}62", "%", "4", "0.22"]
    )
    ranker["cost_per_hour"] = None
    assert "cost" not in " ".join(_part(_lines(ranker), "At 2,000"))


def test_overload_has_a_line_for_each_arm(ranker: Result) -> None:
    """What happens above capacity is one line: offered, answered, p99, errors."""
    part = _part(_lines(ranker), "Above capacity")
    assert part[4].startswith("ORT + batcher") and part[4].endswith(
        "35\N{NO-BREAK SPACE}% (9,100 unavailable)"
    )


def test_soak_findings_are_listed(ranker: Result) -> None:
    """A soak shows what it found, and says so where it found nothing."""
    assert _part(_lines(ranker), "Soak")[-1].startswith("- RSS grew")
    ranker["soak"]["findings"] = []
    assert _part(_lines(ranker), "Soak")[-1] == "- no trend was found"


def test_reservations_are_listed(ranker: Result, file_type: Result) -> None:
    """What to hold against the numbers closes the screen, where there is anything."""
    title = "What to hold against these numbers"
    assert sum(line.startswith("- ") for line in _part(_lines(ranker), title)) == 4
    assert title not in _lines(file_type)


def test_parts_that_a_result_has_not_are_left_out(old: Result) -> None:
    """A result without ratios, demand, overload and soak shows its arms alone."""
    text = "\n".join(_lines(old))
    assert "Capacity" in text
    assert not any(part in text for part in ("Ratios", "At ", "Above", "Soak"))


def test_brackets_are_not_markup(none: Result) -> None:
    """Square brackets in a model's name are printed as they are."""
    assert "[red]large[/red]" in "".join(_lines(none))


def test_brackets_in_findings_are_not_markup(ranker: Result) -> None:
    """Text of the result is never markup, in a list or a table either."""
    ranker["soak"]["findings"][0]["text"] = "[bold]grew[/bold]"
    ranker["arms"][1]["levels"][11]["error_kinds"] = {"[red]x[/red]": 1}
    ranker["arms"][0]["name"] = "[b]a[/b]"
    text = "".join(_lines(ranker))
    assert all(mark in text for mark in ("[bold]grew[/bold]", "[red]x[/red]", "[b]a[/b]"))


def test_an_empty_result_prints() -> None:
    """Every key may be missing."""
    assert _lines({})[0] == "Verdict for —: —"
