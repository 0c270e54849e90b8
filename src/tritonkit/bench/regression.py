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
from tritonkit.stats.disturbance import disturbance
from tritonkit.stats.ratio import Ratio, ratio_of

METRICS = ("capacity", "ratio", "p99")

_RULE = re.compile(r"(?:(?P<arm>\w+)\.)?(?P<metric>\w+)\s*(?P<change>[+-]\d+(?:\.\d+)?)\s*%")
_SHAPE = (
    "give [ARM.]METRIC CHANGE%, such as 'capacity -10%', 'triton_batched.ratio -5%', 'p99 +20%'"
)


@dataclass(frozen=True)
class Rule:
    """`capacity -10%`: fail if the capacity is lower by more than a tenth.

    metric: capacity; ratio, to the first arm of the same run, which a slower machine leaves as it
    is; p99, at the rate that both runs were asked for, where requests that fail are no gain. arm:
    one of them, or None for all.
    change: -0.1.
    """

    metric: str
    arm: str | None
    change: float
    text: str


@dataclass(frozen=True)
class Judged:
    """One rule on one arm. ratio: now over before, with its 95 % interval; None where unknown.

    failed: the whole interval is beyond the change. open: a part of it is, so nothing is sure.
    because: what is said instead, where there is no interval.
    """

    rule: Rule
    arm: str
    ratio: float | None
    low: float | None
    high: float | None
    failed: bool
    open: bool
    because: str = ""

    @property
    def line(self) -> str:
        """For people."""
        name = f"{self.arm} {self.rule.metric}"
        if self.because:
            return f"{name}: {self.because}"
        found = f"{name} {self._change}"
        if self.failed:
            return f"{found}: beyond {self.rule.change:+.0%}"
        if self.open:
            return f"{found}: may be beyond {self.rule.change:+.0%}, which --thorough would show"
        return f"{found}: within {self.rule.change:+.0%}"

    @property
    def _change(self) -> str:
        low, high = ("" if end is None else f"{end - 1:+.1%}" for end in (self.low, self.high))
        ends = f"{low} to {high}" if self.low and high else f"at most {high}" if high else ""
        ends = ends or f"at least {low}"
        return ends if self.ratio is None else f"{self.ratio - 1:+.1%} (95 %: {ends})"


@dataclass(frozen=True)
class _Figure:
    """What a run has of a metric: value is None where only its ends are known, and high where it
    has no upper end. A capacity or ratio of 0, and a p99 without end, are the worst that there is.
    """

    value: float | None
    low: float
    high: float | None


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
        raise InputError(f"{path} is of another version of the kit; measure it again with this one")
    if not _is_whole(document):
        raise InputError(f"{path} is no whole result.json; give one that compare wrote")
    return document


def _is_whole(document: Mapping[str, Any]) -> bool:
    """Whether there is in it what a rule looks at."""
    arms, ratios, rate = (document.get(key) for key in ("arms", "ratios", "rate_rps"))
    needs = {"name", "levels", "capacity_rps", "capacity_interval_rps"}
    return (
        isinstance(arms, list)
        and bool(arms)
        and all(isinstance(arm, dict) and needs <= arm.keys() for arm in arms)
        and all(isinstance(arm["levels"], list) for arm in arms)
        and all(isinstance(level, dict) for arm in arms for level in arm["levels"])
        and isinstance(ratios, list)
        and (rate is None or isinstance(rate, (int, float)))
    )


def require_same_question(
    before: Mapping[str, Any], path: Path, model: str, slo_p99_ms: float
) -> None:
    """InputError if the earlier result is of another model or budget."""
    for name, now in (("model", model), ("slo_p99_ms", slo_p99_ms)):
        if before.get(name) != now:
            raise InputError(
                f"{path} has {name} {before.get(name)}, this run {now}; compare like with like"
            )


def require_comparable(
    rules: Sequence[Rule], before: Mapping[str, Any], arms: Sequence[str], rate_rps: float | None
) -> None:
    """InputError if a rule would judge unlike things, or nothing, or what a busy machine did. arms,
    rate_rps: of this run.
    """
    if rules:
        _require_idle(before, "the baseline", "measure it")
    had = [arm["name"] for arm in before["arms"]]
    for rule in rules:
        told = f"--fail-if '{rule.text}'"
        if rule.arm is not None and rule.arm not in arms:
            raise InputError(f"{told}: {rule.arm} is not in this run; name it in --arms")
        if rule.arm is not None and rule.arm not in had:
            raise InputError(f"{told}: {rule.arm} is not in the baseline; measure that with it")
        if rule.metric == "p99":
            _require_same_rate(told, before.get("rate_rps"), rate_rps)
        if rule.metric == "ratio" and had[0] != arms[0]:
            raise InputError(
                f"{told}: ratios are to the first arm, {had[0]} in the baseline and {arms[0]} in "
                "this run; give both the same --arms"
            )
        if rule.metric == "ratio" and rule.arm == arms[0]:
            raise InputError(f"{told}: ratios are to {rule.arm} itself; name another arm")


def _require_idle(result: Mapping[str, Any], run: str, again: str) -> None:
    """Results of versions that did not look at other processes are taken as they are."""
    found = disturbance({arm["name"]: arm["levels"] for arm in result["arms"]})
    if found is not None and found.is_busy:
        raise InputError(
            f"--fail-if cannot be judged, because the machine was busy in {run}: {found.told}; "
            f"{again} again on an idle machine"
        )


def _require_same_rate(told: str, before_rps: float | None, now_rps: float | None) -> None:
    if before_rps is None:
        raise InputError(f"{told}: the baseline has no p99 of a rate; measure it with --rate-rps")
    if now_rps is None or not math.isclose(now_rps, before_rps, rel_tol=1e-6):
        this = "none" if now_rps is None else f"{now_rps:g}"
        raise InputError(
            f"{told}: the baseline's rate is {before_rps:g} requests/s, this run's {this}; give "
            f"--rate-rps {before_rps:.10g}"
        )


def judge(
    rules: Sequence[Rule], now: Mapping[str, Any], before: Mapping[str, Any]
) -> tuple[Judged, ...]:
    """Each rule on each arm that it is of. now, before: two results as JSON.

    InputError if a rule finds nothing to judge, or the machine was busy in either run: a gate that
    saw nothing must not pass, and one that saw something else at work must not fail.
    """
    if rules:
        _require_idle(now, "this run", "run it")
    arms = [arm["name"] for arm in now["arms"]]
    require_comparable(rules, before, arms, now.get("rate_rps"))
    every = [*arms, *(arm["name"] for arm in before["arms"] if arm["name"] not in arms)]
    judged: list[Judged] = []
    for rule in rules:
        first = arms[0] if rule.metric == "ratio" else ""
        of = [arm for arm in every if arm != first and rule.arm in (None, arm)]
        found = [_judge(rule, arm, now, before) for arm in of]
        if all(x.because and x.open and not x.failed for x in found):
            raise InputError(
                f"--fail-if '{rule.text}' judges nothing ({'; '.join(x.line for x in found)}); "
                "measure both for longer, with the same arms"
            )
        judged += found
    return tuple(judged)


def _judge(rule: Rule, arm: str, now: Mapping[str, Any], before: Mapping[str, Any]) -> Judged:
    for run, result in (("this run", now), ("the baseline", before)):
        if all(a["name"] != arm for a in result["arms"]):
            return _unsure(rule, arm, f"{run} did not measure it")
    ours, theirs = (_metric(rule.metric, arm, result) for result in (now, before))
    if ours is None or theirs is None:
        has = (
            "this run has no" if theirs else "the baseline has no" if ours else "neither run has a"
        )
        # What had a figure before and has none now must not pass in silence.
        return _unsure(rule, arm, f"{has} figure for it", failed=theirs is not None)
    worst = math.inf if rule.metric == "p99" else 0.0
    if worst in (ours.value, theirs.value) and None not in (ours.value, theirs.value):
        return _judge_worst(rule, arm, ours.value == worst, theirs.value == worst)
    found = _change(ours, theirs)
    if found.ratio is None and not found.low and found.high is None:
        return _unsure(rule, arm, "nothing that was tried failed, so there is no upper end")
    limit = 1 + rule.change
    if rule.metric == "p99":
        failed, is_open = found.low > limit, found.high is None or found.high > limit
    else:
        failed, is_open = found.high is not None and found.high < limit, found.low < limit
    return Judged(rule, arm, found.ratio, found.low, found.high, failed, is_open and not failed)


def _unsure(rule: Rule, arm: str, why: str, failed: bool = False) -> Judged:
    because = f"cannot be compared, because {why}"
    return Judged(rule, arm, None, None, None, failed, open=True, because=because)


def _judge_worst(rule: Rule, arm: str, is_now: bool, was_before: bool) -> Judged:
    """Where a run kept the budget at no rate, or failed too many requests at the one asked for."""
    is_p99 = rule.metric == "p99"
    what = "most levels at the rate had failed requests" if is_p99 else "no rate kept the budget"
    when = "in both runs" if is_now and was_before else "in this run" if is_now else "before"
    failed = is_now and not was_before
    tail = ", unlike before" if failed else "" if is_now else ", unlike now"
    because = f"{what} {when}{tail}"
    return Judged(rule, arm, None, None, None, failed, open=False, because=because)


def _change(now: _Figure, before: _Figure) -> Ratio:
    if now.value is not None and before.value is not None:
        return ratio_of(
            Capacity(now.value, now.low, now.high), Capacity(before.value, before.low, before.high)
        )
    low = now.low / before.high if before.high else 0.0
    high = now.high / before.low if before.low and now.high is not None else None
    return Ratio(None, low, high)


def _metric(metric: str, arm: str, result: Mapping[str, Any]) -> _Figure | None:
    """The figure with its interval, of an arm that the run has; None if there is none."""
    found = next(a for a in result["arms"] if a["name"] == arm)
    if metric == "capacity":
        interval = found["capacity_interval_rps"]
        return None if interval is None else _Figure(found["capacity_rps"], *interval)
    if metric == "ratio":
        first = result["arms"][0]["name"]
        pair = next((r for r in result["ratios"] if (r["arm"], r["than"]) == (arm, first)), None)
        if pair is None or (pair["ratio"] is None and not (pair["low"] or pair["high"])):
            return None
        return _Figure(pair["ratio"], pair["low"] or 0.0, pair["high"])
    return _p99(found["levels"])


def _p99(levels: Sequence[Mapping[str, Any]]) -> _Figure | None:
    """Of the levels at the rate asked for, in ms. A level with errors has none: that of the
    requests that were left falls where a server rejects. It is without end unless two of three
    levels have one, as for a rate that is held.
    """
    counted = [x for x in levels if x["purpose"] == "rate" and not x["generator_bound"]]
    p99s = [x["p99_ms"] for x in counted if not x["errors"] and x["p99_ms"] is not None]
    if len(counted) < 2:
        return None
    if 3 * len(p99s) < 2 * len(counted):
        return _Figure(math.inf, math.inf, math.inf)
    return _spread(p99s)


def _spread(values: Sequence[float]) -> _Figure:
    """The geometric mean of repeated levels and its interval, from how far they scatter."""
    from statistics import fmean, stdev

    logs = [math.log(v) for v in values]
    # Student's t, 97.5 %, for 1 to 10 degrees of freedom; 2.23 is on the safe side beyond.
    t = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)[min(len(logs) - 2, 9)]
    mean, half = fmean(logs), t * stdev(logs) / math.sqrt(len(logs))
    return _Figure(math.exp(mean), math.exp(mean - half), math.exp(mean + half))
