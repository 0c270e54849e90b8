"""Facts about the page."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from typing import Any

import matplotlib
import pytest

from tritonkit.report.charts import latency
from tritonkit.report.html import render_html
from tritonkit.report.times import PARTS
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


def test_verdict_comes_before_everything_else(ranker_page: str) -> None:
    """Verdict, doubts, capacity, ratios and rate come first; levels, certificates, method last."""
    text = re.sub(r"\s+", " ", _Page(ranker_page).text)
    marks = (
        "1.25× (95",
        "6.8× one ONNX Runtime session",
        "What to hold against these numbers",
        "Capacity against the ceiling",
        "How the arms differ",
        "What ONNX Runtime + asyncio batcher lacks beside Triton",
        "Serving 2,000 requests/s",
        "p99 against rate",
        "Above capacity",
        "Where the time goes",
        "Batches that ran",
        "Under load for long",
        "All levels",
        "Certificates",
        "How it was measured",
    )
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)


def test_parts_that_a_result_has_not_are_left_out(old: Result) -> None:
    """A result without ratios, demand, overload, split and soak has no empty headings for them."""
    text = _Page(render_html(old)).text
    absent = ("How the arms differ", "Serving", "Above capacity", "Where the time", "for long")
    assert not any(heading in text for heading in absent)


def _rows(html: str) -> list[str]:
    """The rows of the table of levels, each with the line below it where it has one."""
    row = r'<tr class="level.*?</tr>(?:\s*<tr class="note.*?</tr>)?'
    return re.findall(row, html, flags=re.DOTALL)


def test_every_level_has_a_row(rendered: tuple[Result, str]) -> None:
    """The table has one row for each level of each arm."""
    result, html = rendered
    assert len(_rows(html)) == sum(len(arm["levels"]) for arm in result["arms"])


def test_excluded_rows_are_grey_and_worded(ranker_page: str) -> None:
    """The level that does not count is grey and says why; no other row is."""
    rows = [row for row in _rows(ranker_page) if "excluded" in row or "not counted" in row]
    assert len(rows) == 1
    assert 'class="level excluded noted"' in rows[0] and "not counted: the generator" in rows[0]


def test_reasons_stand_on_a_line_of_their_own(ranker_page: str) -> None:
    """A level's result is a word or two, so that the table stays narrow; why is told below it."""
    (row,) = (row for row in _rows(ranker_page) if "p99 rose by 61" in row)
    level, note = row.split('<tr class="note')
    assert "<span>unsteady</span></td></tr>" in level
    assert 'colspan="13"><span>unsteady: p99 rose by 61 % from' in note
    plain = [row for row in _rows(ranker_page) if ">holds</span>" in row]
    assert plain and sum('class="note' in row for row in plain) == 1  # p99 of too few requests


def test_the_search_says_what_is_beyond_it(ranker_page: str, old: Result) -> None:
    """The overload, which no panel shows, is told below each; without one nothing is."""
    told = "Not drawn: 6,465 rps, 1.50× the capacity: 70\N{NO-BREAK SPACE}% answered, p99 71.0 ms, "
    assert told + "errors 35\N{NO-BREAK SPACE}% (9,100 unavailable)." in ranker_page
    assert ranker_page.count("Not drawn:") == 4
    assert "Not drawn" not in render_html(old) and "The overload is told" not in render_html(old)


def test_intervals_stand_below_their_percentiles(ranker_page: str) -> None:
    """Each p99 has its interval in the same cell."""
    assert "54.9<small>51.0\N{EN DASH}61.5</small>" in ranker_page


def test_no_difference_is_a_finding_of_its_own(file_type_page: str) -> None:
    """Rows whose interval holds 1 are marked, hollow and say it."""
    html = file_type_page
    assert html.count('<tr class="same">') == 3
    assert html.count("<strong>no difference</strong>") == 3
    forest = re.findall(r'<svg class="forest".*?</svg>', html)
    assert len(forest) == 3 and all('fill="#fff"' in svg for svg in forest)


def test_a_difference_is_filled_and_clear_of_the_line(ranker_page: str) -> None:
    """The mark of a ratio that differs is filled, and its interval is on one side of the 1."""
    forest = re.findall(r'<svg class="forest".*?</svg>', ranker_page)
    assert len(forest) == 6 and not any('fill="#fff"' in svg for svg in forest)
    ends = re.search(r'd="M([\d.]+) 10H([\d.]+)M', forest[3])
    one = re.search(r'd="M([\d.]+) 0V20"', forest[3])
    assert ends and one and float(one[1]) < float(ends[1]) < float(ends[2])


def test_what_the_own_batcher_lacks_stands_beside_what_it_reaches(ranker_page: str) -> None:
    """The list of what is lacking follows the arm's capacity and ratio."""
    html = ranker_page
    part = html[html.index("lacks beside Triton") :]
    part = part[: part.index("</section>")]
    assert "It reaches 4,310 requests/s, 5.49×" in part
    assert part.count("<li>") == 2


def test_signs_are_explained_where_they_are_drawn(ranker_page: str, file_type_page: str) -> None:
    """The legend has the excluded and the unsteady sign exactly where a level is one."""
    signs = ("generator was the limit</span>", "struck through: unsteady")
    with_both, without = ranker_page, file_type_page
    assert all(sign in with_both for sign in signs)
    assert not any(sign in without for sign in signs)


def test_errors_are_crossed_in_the_chart(none: Result, ranker_page: str) -> None:
    """The legend explains the cross exactly where a drawn level had errors."""
    assert "dark cross: had errors" in render_html(none)
    assert "dark cross: had errors" not in ranker_page


def _lines(html: str) -> list[str]:
    """The joined lines of the arms over three levels or more, by their outlines."""
    lines = re.findall(r'<path d="([^"]+)"[^>]*style="fill: none; stroke: #(?:4a5058|0b66a8)', html)
    return [line for line in lines if line.count("L") > 1]


def test_an_excluded_level_is_no_part_of_the_line(file_type: Result, file_type_page: str) -> None:
    """A closed loop that the generator bound is marked, and the arm's line passes it by."""
    file_type["arms"][0]["levels"][2]["generator_bound"] = True
    marked = render_html(file_type)
    file_type["arms"][0]["levels"].pop(2)
    assert _lines(marked)[0] == _lines(render_html(file_type))[0] != _lines(file_type_page)[0]


def test_every_arm_has_a_panel_of_its_search(ranker_page: str) -> None:
    """The search is drawn for each arm by itself, with its capacity below."""
    html = ranker_page
    assert all(f'id="search-{place}-figure_1"' in html for place in range(4))
    assert "Capacity 4,310, 95" in html


def test_a_wanted_rate_far_away_does_not_squeeze_the_search(ranker_page: str) -> None:
    """The panel's axis ends near the search, not at a rate that the arm cannot reach."""
    html = ranker_page
    panel = html[html.index('id="search-0-figure_1"') : html.index('id="search-1-figure_1"')]
    assert ">840</text>" in panel and ">2,000</text>" not in panel
    marks = [float(x) for x in re.findall(r'<use [^>]*x="([\d.]+)"', panel)]
    assert marks and max(marks) < 3.9 * 72  # the panel's width, in points


def test_an_overloaded_level_stands_on_the_edge_with_its_value(file_type: Result) -> None:
    """A p99 far beyond the budget does not stretch the axis: its value is written instead."""
    assert "beyond the top" not in render_html(file_type)
    file_type["arms"][0]["levels"][8]["p99_ms"] = 1391.75
    html = render_html(file_type)
    assert "beyond the top" in html and html.count("1,392 ms →</text>") == 2
    assert latency.top_ms(build_view(file_type).arms, 200.0) == latency.CLIP * 200.0


def test_close_points_on_the_edge_share_a_label(file_type: Result) -> None:
    """Where two values would be written over each other, their range is written once."""
    file_type["arms"][0]["levels"][8] |= {"p99_ms": 1900.0, "offered": 109.0}
    file_type["arms"][1]["levels"][8] |= {"p99_ms": 2200.0, "offered": 109.2}
    assert render_html(file_type).count("1,900\N{EN DASH}2,200 ms →</text>") == 2


def test_the_time_split_is_drawn_to_scale(ranker_page: str) -> None:
    """Each part is as wide as its share of the longest bar; one that does not add up is starred."""
    html = ranker_page
    part = html[html.index("At the lightest load") : html.index("nearest below capacity")]
    widths = re.findall(r'class="part (\w+)" style="width: ([\d.]+)%"', part)
    first = dict(widths[: len(PARTS)])
    assert [name for name, _ in widths[: len(PARTS)]] == [*PARTS]
    assert float(first["compute"]) == pytest.approx(100 * 0.44, abs=0.1)
    assert sum(float(width) for width in first.values()) == pytest.approx(100, abs=0.1)
    assert "* Triton, no batching: adds up to 78 % of what the client saw" in part


def test_an_aside_is_never_an_alarm(ranker_page: str) -> None:
    """That a p99 has too few requests is told in plain ink."""
    html = ranker_page
    assert '<span class="aside"><span>p99 of too few requests, needs 4,601</span></span>' in html


def test_text_from_the_result_is_escaped(ranker: Result) -> None:
    """No text of the result can become markup, in the page or inside a chart."""
    evil = "</style><script>alert(1)</script><b>&\"'{{ 1 }}$x$"
    ranker["model"] = ranker["verdict"]["because"] = evil
    ranker["method"]["notes"] = ranker["method"]["payloads"]["warnings"] = [evil]
    ranker["method"]["payloads"]["source"] = evil
    ranker["soak"] |= {"arm": evil, "findings": [{"series": "p99_ms", "text": evil}]}
    ranker["arms"][0] |= {"name": evil, "lacks": [evil]}
    ranker["arms"][0]["certificate"] |= {"statements": [evil], "effective_config": {evil: evil}}
    ranker["arms"][1]["levels"][11] |= {"error_kinds": {evil: 1}, "arrivals": evil}
    ranker["arms"][1]["levels"][0] |= {"mode": evil, "purpose": evil, "unsteady_because": evil}
    ranker["arms"][1]["levels"][0] |= {"steady": False}
    ranker["arms"][1]["levels"][0]["time_split"]["remark"] = evil
    ranker["ratios"][0] |= {"arm": evil, "than": evil}
    page = _Page(render_html(ranker))
    assert page.tags["script"] == page.tags["b"] == 0
    assert page.unbalanced == []
    assert page.text.count(evil) > 12


def test_a_very_long_model_name_renders(file_type: Result) -> None:
    """A long name without spaces is kept whole in the headline."""
    file_type["model"] = "m" * 400
    assert f"<h1>Keep the single ONNX Runtime session for {'m' * 400}<" in render_html(file_type)


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
    assert "No arm that batches was measured." in text


@pytest.mark.parametrize(
    "key",
    [
        "certificate",
        "tuning",
        "levels",
        "capacity_rps",
        "capacity_interval_rps",
        "share_of_ceiling",
        "name",
        "demand",
        "lacks",
    ],
)
def test_null_parts_of_an_arm_render(ranker: Result, key: str) -> None:
    """Any part of an arm may be null."""
    for arm in ranker["arms"]:
        arm[key] = None
    assert _Page(render_html(ranker)).unbalanced == []


def test_null_numbers_of_levels_render(ranker: Result) -> None:
    """Every value of a level may be null, and zero latencies do not break the log scale."""
    for place in (0, 6, 11, 12):
        level = ranker["arms"][0]["levels"][place]
        ranker["arms"][0]["levels"][place] = dict.fromkeys(level)
    ranker["arms"][1]["levels"][0]["p99_ms"] = 0.0
    ranker["arms"][1]["levels"][6]["p99_interval_ms"] = [0.0, 1e17]
    assert _Page(render_html(ranker)).unbalanced == []


@pytest.mark.parametrize("value", [None, -1, 0, 10**400, "x", [], {}])
def test_hostile_values_render(ranker: Result, value: Any) -> None:
    """Whatever stands where a number, a list or an object is due, there is a whole page."""
    ranker["ratios"][0] = ranker["ratios"][1]["high"] = ranker["slo_p99_ms"] = value
    ranker["soak"] |= {"at_s": [value, 1.0, 2.0], "rss_bytes": value, "findings": [value]}
    ranker["ceiling"] |= {"best_ips": value, "batch1_ips": value}
    ranker["ceiling"]["points"][0] = value
    arm = ranker["arms"][3]
    arm |= {"capacity_rps": value, "capacity_interval_rps": [value, value]}
    arm["demand"] |= {"replicas": value, "headroom": value, "holds": value}
    arm["levels"][0] |= {"time_split": {"queue_ms": value}, "generator_cpu": value}
    arm["levels"][5] |= {"offered": value, "p99_interval_ms": [value, value], "round": value}
    arm["levels"][6] = value
    ranker["arms"][1] = value
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
