"""Facts about the page of a plan."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

from tritonkit.report.charts import plan as charts
from tritonkit.report.plan_html import render_plan_html
from tritonkit.report.plan_view import build_plan_view

Document = dict[str, Any]
VOID = {"meta", "br", "hr", "img", "link", "input"}


class _Page(HTMLParser):
    """Wrongly closed tags, ids, references and visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.tags: set[str] = set()
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
        self.tags.add(tag)
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


@pytest.fixture
def page(planned: Document) -> _Page:
    return _Page(render_plan_html(planned))


def test_page_needs_no_network(page: _Page) -> None:
    """Every reference points into the page, and no tag can fetch."""
    assert page.refs and all(ref.startswith("#") for ref in page.refs)
    assert not {"script", "link", "img", "iframe", "object"} & page.tags


def test_page_is_whole(page: _Page) -> None:
    """Tags are balanced, ids are unique, and no reference dangles."""
    assert page.unbalanced == []
    assert len(page.ids) == len(set(page.ids))
    assert {ref[1:] for ref in page.refs} <= set(page.ids)


def test_order_is_what_a_reader_needs(page: _Page, planned: Document) -> None:
    """The conclusion and the settings come first, the levels and the method last."""
    text = re.sub(r"\s+", " ", page.text)
    marks = (
        planned["because"],
        "What to hold against these numbers",
        "The settings",
        "+max_batch_size: 64",
        "Predicted and measured",
        "What was tried live",
        "p99 against rate",
        "One notch more or less",
        "Where the time went",
        "What this does not say",
        "All levels",
        "How it was measured",
        "Some CPU",
    )
    places = [
        text.index(mark, text.index("</style>") if "</style>" in text else 0) for mark in marks
    ]
    assert places == sorted(places)


def test_a_miss_is_in_words_and_in_bold(planned: Document) -> None:
    """The p99 that was predicted badly leads what is held against the numbers."""
    html = render_plan_html(planned)
    assert "<strong>The p99 at 1,750 requests/s was predicted 33" in html
    planned["predicted"]["p99_ms"] = 30.0
    assert "<strong>The p99" not in render_plan_html(planned)


def test_every_level_has_a_row_and_a_mark(planned: Document) -> None:
    """The table has the levels of the settings and of the session, the chart those of settings."""
    html = render_plan_html(planned)
    assert html.count('<tr class="level ') == 7
    assert len(charts.drawn(build_plan_view(planned).tried)) == 6


def test_a_level_beyond_the_top_is_said_to_be(planned: Document) -> None:
    """The legend has the sign exactly where an overloaded level stands on the edge."""
    assert "on the top edge: beyond it" in render_plan_html(planned)
    planned["tried"][0]["levels"].pop()
    assert "on the top edge" not in render_plan_html(planned)


def test_settings_differ_in_colour_and_mark(planned: Document) -> None:
    """As many as a plan runs live are told apart twice over, the winner in its own colour."""
    for number in range(3):
        entry = copy.deepcopy(planned["tried"][1])
        entry["settings"]["max_batch_size"] = 20 + number
        planned["tried"].append(entry)
    styles = charts.styles(build_plan_view(planned).tried)
    assert len({style.colour for style in styles}) == len(styles) == 6
    assert len({style.marker for style in styles}) == len(styles)


def test_equal_configs_are_told(planned: Document) -> None:
    """Without a diff the page says that nothing changes."""
    planned["diff"] = ""
    html = render_plan_html(planned)
    assert "stays as it is" in html and '<pre class="diff">' not in html


def test_text_of_the_plan_is_escaped(planned: Document) -> None:
    """No text of the document can become markup, in the page or inside a chart."""
    evil = "</style><script>alert(1)</script><b>&\"'{{ 1 }}$x$"
    planned |= {"model": evil, "because": evil, "diff": f"+{evil}", "arrivals": evil}
    planned["machine"]["cpu_model"] = evil
    planned["stages_s"][evil] = 1.0
    planned["sensitivity"][0] |= {"settings": None, "change": evil}
    planned["tried"][0]["levels"][0] |= {"purpose": evil, "steady": False, "unsteady_because": evil}
    page = _Page(render_plan_html(planned))
    assert not {"script", "b"} & page.tags
    assert page.unbalanced == []
    assert page.text.count(evil) > 7


def test_an_empty_plan_says_what_is_missing() -> None:
    """Every key may be missing."""
    page = _Page(render_plan_html({}))
    assert page.unbalanced == []
    for said in ("nothing to draw", "Nothing was run live", "No change to the winner"):
        assert said in page.text


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a document, but only into the first of a list."""
    yield path
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _places(each, (*path, key))
    elif isinstance(value, list) and value:
        yield from _places(value[0], (*path, 0))


@pytest.mark.parametrize("value", [None, -1, 0, 10**400, 1e-300, "x", [], {}, True])
def test_whatever_stands_anywhere_there_is_a_view(
    planned: Document, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each value of the document in turn may be null, of another type or without measure."""
    monkeypatch.setattr(charts, "svg", lambda *_: "")  # drawing is slow, and has the next test
    for path in list(_places(planned))[1:]:
        document = copy.deepcopy(planned)
        at: Any = document
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
        view = build_plan_view(document)
        charts.live_levels(view.tried, view.slo_p99_ms, "live", (9.0, 4.3))
        axis_rps = charts.capacity_axis_rps(view.tried)
        lines = [charts.capacity_line(each, axis_rps, "#000") for each in view.tried]
        assert not any("nan" in line or "inf" in line for line in lines), path


@pytest.mark.parametrize("value", [None, -1, 0, 10**400, 1e-300, "x", [], {}])
def test_hostile_numbers_are_drawn(planned: Document, value: Any) -> None:
    """Budget, rates, times and intervals of any kind do not break a chart."""
    levels = planned["tried"][0]["levels"]
    levels[0] |= {"offered": value, "p99_interval_ms": [value, value]}
    levels[1]["p99_ms"] = levels[2]["p99_ms"] = value
    planned["tried"][1]["levels"][0]["offered"] = value
    planned["slo_p99_ms"] = value
    planned["tried"][0]["measured"] = {"capacity_rps": value, "capacity_interval_rps": [value] * 2}
    planned["tried"][1]["predicted"]["capacity_rps"] = value
    assert _Page(render_plan_html(planned)).unbalanced == []


def test_same_plan_same_page(planned: Document) -> None:
    """The page depends on nothing but the document."""
    assert render_plan_html(planned) == render_plan_html(planned)
