"""Facts about the page."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from typing import Any

import matplotlib
import pytest

from tritonkit.report import charts
from tritonkit.report.html import render_html
from tritonkit.report.view import build_view

Result = dict[str, Any]
VOID = {"meta", "br", "hr", "img", "link", "input"}


class _Page(HTMLParser):
    """Tags that are open or wrongly closed, ids, attributes and visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.tags: Counter[str] = Counter()
        self.ids: list[str] = []
        self.refs: list[str] = []
        self.text = ""
        self.feed(html)
        self.unbalanced += self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name in ("href", "xlink:href", "src"):
                self.refs.append(value or "")
            self.refs += re.findall(r"url\(([^)]*)\)", value or "")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_needs_no_network(rendered: tuple[Result, str]) -> None:
    """Nothing is loaded: every reference points into the page, and no tag can fetch."""
    html = rendered[1]
    page = _Page(html)
    assert page.refs and all(ref.startswith("#") for ref in page.refs)
    assert not {"script", "link", "img", "iframe", "object"} & page.tags.keys()
    assert "@import" not in html and "@font-face" not in html


def test_ids_are_unique_and_references_resolve(rendered: tuple[Result, str]) -> None:
    """Several charts share a page without sharing an id, and no reference dangles."""
    page = _Page(rendered[1])
    assert len(page.ids) == len(set(page.ids))
    assert {ref[1:] for ref in page.refs} <= set(page.ids)


def test_markup_is_balanced(rendered: tuple[Result, str]) -> None:
    """Every tag that opens is closed in order."""
    assert _Page(rendered[1]).unbalanced == []


def test_verdict_comes_before_everything_else(ranker: Result) -> None:
    """The order is verdict, curves, ceiling, batches, levels, certificates, method."""
    text = re.sub(r"\s+", " ", _Page(render_html(ranker)).text)
    marks = (
        "4.6 times the 694",
        "Latency against throughput",
        "What batching could buy",
        "Batches that Triton ran",
        "All levels",
        "Certificates",
        "How it was measured",
    )
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)


def test_every_level_has_a_row(rendered: tuple[Result, str]) -> None:
    """The table has one row for each level of each arm."""
    result, html = rendered
    table = html[html.index('<table class="levels">') : html.index("</table>")]
    levels = sum(len(arm["levels"]) for arm in result["arms"])
    assert len(re.findall(r'<td class="l">(?:closed|open)</td>', table)) == levels


def test_over_budget_rows_are_tinted_and_worded(ranker: Result) -> None:
    """A level over the budget is tinted and says so in its row; the four others are neither."""
    html = render_html(ranker)
    rows = re.findall(r'<tr class="bad">.*?</tr>', html, flags=re.DOTALL)
    assert len(rows) == 4
    assert all("over budget" in row for row in rows)


def test_unusable_levels_are_crossed_in_the_chart(none: Result, ranker: Result) -> None:
    """The legend explains the cross exactly where a level does not count."""
    assert "does not count" in render_html(none)
    assert "does not count" not in render_html(ranker)


def _lines(html: str) -> list[str]:
    """The joined lines of all charts, by their outlines."""
    return re.findall(r'<path d="([^"]+)"[^>]*style="fill: none; stroke: #(?:4a5058|0b66a8)', html)


def test_a_repeat_is_no_part_of_the_line(ranker: Result) -> None:
    """The repeat adds a small mark and its legend; the joined lines stay as they are."""
    with_repeat = render_html(ranker)
    for arm in ranker["arms"]:
        arm["levels"].pop()
    without = render_html(ranker)
    assert _lines(with_repeat) == _lines(without) != []
    assert "measured again" in with_repeat and "measured again" not in without


def test_an_overloaded_level_stands_on_the_edge_with_its_value(ranker: Result) -> None:
    """A p99 far beyond the budget does not stretch the axis: its value is written instead."""
    assert "beyond the top" not in render_html(ranker)
    ranker["arms"][0]["levels"][8]["p99_ms"] = 1391.75
    html = render_html(ranker)
    assert "beyond the top" in html and html.count("1,392 ms →</text>") == 2
    assert charts.top_ms(build_view(ranker).arms, 50.0) == charts.CLIP * 50.0


def test_close_points_on_the_edge_share_a_label(ranker: Result) -> None:
    """Where two values would be written over each other, their range is written once."""
    ranker["arms"][0]["levels"][8] |= {"p99_ms": 900.0, "achieved_rps": 560.0}
    ranker["arms"][1]["levels"][8] |= {"p99_ms": 1200.0, "achieved_rps": 561.0}
    assert render_html(ranker).count("900\N{EN DASH}1,200 ms →</text>") == 2


def test_an_aside_is_never_an_alarm(ranker: Result) -> None:
    """How late a level was sent is told in plain ink, even where the level is over the budget."""
    ranker["arms"][0]["levels"][8] |= {
        "generator_bound": True,
        "lateness_p99_ms": 12.0,
        "p99_ms": 80.0,
    }
    html = render_html(ranker)
    assert '<span class="aside">; <span>sent late (12 ms)</span></span>' in html


def test_text_from_the_result_is_escaped(ranker: Result) -> None:
    """No text of the result can become markup, in the page or inside a chart."""
    evil = "</style><script>alert(1)</script><b>&\"'{{ 1 }}$x$"
    ranker["model"] = ranker["verdict"]["because"] = evil
    ranker["method"]["notes"] = [evil]
    ranker["arms"][0] |= {"name": evil}
    ranker["arms"][0]["certificate"] |= {"statements": [evil], "effective_config": {evil: evil}}
    ranker["arms"][1]["levels"][0] |= {"errors": 1, "error_kinds": {evil: 1}, "mode": evil}
    page = _Page(render_html(ranker))
    assert page.tags["script"] == page.tags["b"] == 0
    assert page.unbalanced == []
    assert evil in page.text


def test_a_very_long_model_name_renders(ranker: Result) -> None:
    """A long name without spaces is kept whole in the headline."""
    ranker["model"] = "m" * 400
    assert f"<h1>Serve {'m' * 400} with" in render_html(ranker)


def test_one_level_is_enough(file_type: Result) -> None:
    """A single level per arm, and a single ceiling point, draw without complaint."""
    for arm in file_type["arms"]:
        del arm["levels"][1:]
    del file_type["ceiling"]["points"][1:]
    page = _Page(render_html(file_type))
    assert page.tags["svg"] > 4


def test_missing_parts_render_without_charts() -> None:
    """An empty result gives a page that says what is missing."""
    text = _Page(render_html({})).text
    assert "nothing to draw" in text
    assert "No Triton arm was measured." in text


@pytest.mark.parametrize(
    "key", ["certificate", "tuning", "levels", "capacity_rps", "share_of_ceiling", "name"]
)
def test_null_parts_of_an_arm_render(ranker: Result, key: str) -> None:
    """Any part of an arm may be null."""
    for arm in ranker["arms"]:
        arm[key] = None
    assert _Page(render_html(ranker)).unbalanced == []


def test_null_numbers_of_levels_render(ranker: Result) -> None:
    """Every value of a level may be null, and zero latencies do not break the log scale."""
    ranker["arms"][0]["levels"][0] = dict.fromkeys(ranker["arms"][0]["levels"][0])
    ranker["arms"][1]["levels"][0]["p99_ms"] = 0.0
    assert _Page(render_html(ranker)).unbalanced == []


def test_same_result_same_page(file_type: Result) -> None:
    """The page depends on nothing but the result: no dates, no random ids."""
    assert render_html(file_type) == render_html(file_type)


def test_matplotlib_settings_are_left_alone(file_type: Result) -> None:
    """Rendering changes no global matplotlib setting."""
    before = dict(matplotlib.rcParams)
    render_html(file_type)
    assert dict(matplotlib.rcParams) == before


def test_configuration_is_collapsed(ranker: Result) -> None:
    """Each arm's effective configuration is in the page, folded away."""
    page = _Page(render_html(ranker))
    assert page.tags["pre"] == len(ranker["arms"])
    assert page.tags["details"] == 2 * len(ranker["arms"])
