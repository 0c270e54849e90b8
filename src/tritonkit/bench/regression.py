"""A gate for CI: is this result worse than an earlier one, by its interval and not by a point?"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonkit.bench.arms import ARMS
from tritonkit.bench.result import SCHEMA
from tritonkit.errors import InputError
from tritonkit.stats.capacity import Capacity
from tritonkit.stats.ratio import ratio_of

METRICS = ("capacity", "ratio", "p99")

_RULE = re.compile(r"(?:(?P<arm>\w+)\.)?(?P<metric>\w+)\s*(?P<change>[+-]\d+(?:\.\d+)?)\s*%")
_SHAPE = (
    "give [ARM.]METRIC CHANGE%, such as 'capacity -10%', 'triton_batched.ratio -5%', 'p99 +20%'"
)


@dataclass(frozen=True)
class Rule:
    """`capacity -10%`: fail if the capacity is lower by more than a tenth.

    metric: capacity; ratio, to the first arm of the same run, which a slower machine leaves as it
    is; p99, at the rate that both runs were asked for. arm: one of them, or None for all.
    change: -0.1.
    """

    metric: str
    arm: str | None
    change: float
    text: str


@dataclass(frozen=True)
class Judged:
    """One rule on one arm. ratio: now over before, with its 95 % interval; None if unknown.

    failed: the whole interval is beyond the change. open: a part of it is, so nothing is sure.
    """

    rule: Rule
    arm: str
    ratio: float | None
    low: float | None
    high: float | None
    failed: bool
    open: bool

    @property
    def line(self) -> str:
        """For people."""
        name = f"{self.arm} {self.rule.metric}"
        if self.ratio is None or self.low is None or self.high is None:
            return f"{name}: cannot be compared, because one of the two runs has no figure for it"
        found = f"{name} {self.ratio - 1:+.1%} (95 %: {self.low - 1:+.1%} to {self.high - 1:+.1%})"
        if self.failed:
            return f"{found}: beyond {self.rule.change:+.0%}"
        if self.open:
            return f"{found}: may be beyond {self.rule.change:+.0%}, which --thorough would show"
        return f"{found}: within {self.rule.change:+.0%}"


def parse_rule(text: str) -> Rule:
    """InputError unless it is one; a fall of p99, or a rise of the others, is no regression."""
    match = _RULE.fullmatch(text.strip())
    if match is None:
        raise InputError(f"--fail-if '{text}' is no rule; {_SHAPE}")
    metric, arm, change = match["metric"], match["arm"], float(match["change"]) / 100
    if metric not in METRICS:
        raise InputError(f"--fail-if '{text}': no metric '{metric}', only {', '.join(METRICS)}")
    if arm is not None and arm not in ARMS:
        raise InputError(f"--fail-if '{text}': no arm '{arm}', only {', '.join(ARMS)}")
    worse = change > 0 if metric == "p99" else -1 < change < 0
    if not worse:
        sign = "above 0" if metric == "p99" else "between -100% and 0"
        raise InputError(f"--fail-if '{text}': the change of {metric} must be {sign}")
    return Rule(metric, arm, change, text)


def read_result(path: Path) -> Mapping[str, Any]:
    """An earlier result.json. InputError if it cannot be read, or is of an older schema."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise InputError(f"{path} is no result.json; give one that compare wrote") from error
    if not isinstance(document, dict) or "arms" not in document:
        raise InputError(f"{path} is no result.json; give one that compare wrote")
    if document.get("schema") != SCHEMA:
        raise InputError(f"{path} is of an older kit; measure it again with this one")
    return document


def require_same_question(
    before: Mapping[str, Any], path: Path, model: str, slo_p99_ms: float
) -> None:
    """InputError if the earlier result is of another model or budget."""
    for name, now in (("model", model), ("slo_p99_ms", slo_p99_ms)):
        if before.get(name) != now:
            raise InputError(
                f"{path} has {name} {before.get(name)}, this run {now}; compare like with like"
            )


def judge(
    rules: Sequence[Rule], now: Mapping[str, Any], before: Mapping[str, Any]
) -> tuple[Judged, ...]:
    """Each rule on each arm that it is of. now, before: two results as JSON."""
    judged = []
    for rule in rules:
        for arm in now["arms"]:
            name = arm["name"]
            if rule.arm not in (None, name):
                continue
            if rule.metric == "ratio" and name == now["arms"][0]["name"]:
                continue
            judged.append(_judge(rule, name, now, before))
    return tuple(judged)


def _judge(rule: Rule, arm: str, now: Mapping[str, Any], before: Mapping[str, Any]) -> Judged:
    ours, theirs = (_metric(rule.metric, arm, result) for result in (now, before))
    if ours is None or theirs is None:
        # What had a figure before and has none now is worse for sure.
        return Judged(rule, arm, None, None, None, failed=theirs is not None, open=True)
    found = ratio_of(ours, theirs)
    if found.ratio is None or found.low is None or found.high is None:
        return Judged(rule, arm, None, None, None, failed=ours.rps == 0, open=True)
    limit = 1 + rule.change
    if rule.metric == "p99":
        failed, is_open = found.low > limit, found.high > limit
    else:
        failed, is_open = found.high < limit, found.low < limit
    return Judged(rule, arm, found.ratio, found.low, found.high, failed, is_open and not failed)


def _metric(metric: str, arm: str, result: Mapping[str, Any]) -> Capacity | None:
    """The figure with its interval. Of p99, whose unit is ms, only ratios are taken as well."""
    found = next((a for a in result["arms"] if a["name"] == arm), None)
    if found is None:
        return None
    if metric == "capacity":
        interval = found["capacity_interval_rps"]
        return None if interval is None else Capacity(found["capacity_rps"], *interval)
    if metric == "ratio":
        first = result["arms"][0]["name"]
        pair = next((r for r in result["ratios"] if (r["arm"], r["than"]) == (arm, first)), None)
        if pair is None or pair["ratio"] is None or pair["low"] is None:
            return None
        return Capacity(pair["ratio"], pair["low"], pair["high"])
    p99s = sorted(
        x["p99_ms"]
        for x in found["levels"]
        if x["purpose"] == "rate" and not x["generator_bound"] and x["p99_ms"] is not None
    )
    if len(p99s) < 2:
        return None
    return _spread(p99s)


def _spread(values: Sequence[float]) -> Capacity:
    """The geometric mean of repeated levels and its interval, from how far they scatter."""
    from statistics import fmean, stdev

    logs = [math.log(v) for v in values]
    # Student's t, 97.5 %, for 1 to 10 degrees of freedom; 2.23 is on the safe side beyond.
    t = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)[min(len(logs) - 2, 9)]
    mean, half = fmean(logs), t * stdev(logs) / math.sqrt(len(logs))
    return Capacity(math.exp(mean), math.exp(mean - half), math.exp(mean + half))
