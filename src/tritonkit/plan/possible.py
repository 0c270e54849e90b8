"""Whether what is asked can be done at all, and if not, the nearest that can."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tritonkit.errors import InputError
from tritonkit.plan.predict import LEAST_RPS, predict
from tritonkit.plan.search import Lanes, Option, lane
from tritonkit.plan.settings import Settings
from tritonkit.plan.stream import Stream

BEYOND = 1.25
"""A rate so many times what is predicted is refused; one that is nearer is tried live."""


def require_budget(
    options: Sequence[Settings], lanes: Lanes, stream: Stream, slo_p99_ms: float
) -> None:
    """InputError if requests that come one by one break the budget already."""
    plain = [settings for settings in options if settings.dynamic_batching is None]
    found = [predict(each, lane(lanes, each), stream, LEAST_RPS).p99_ms for each in plain]
    least_ms = min(math.inf if p99_ms is None else p99_ms for p99_ms in found)
    if least_ms > slo_p99_ms:
        raise InputError(
            f"a p99 of {slo_p99_ms:g} ms: requests that come one by one already take a p99 of "
            f"{least_ms:.3g} ms; give a budget above that, or a faster model"
        )


def require_rate(best: Option, slo_p99_ms: float, rate_rps: float) -> None:
    """InputError if the rate is far above what the best settings serve. best: by capacity."""
    most_rps = best.merit
    if rate_rps > BEYOND * most_rps:
        replicas = f"; {math.ceil(rate_rps / most_rps)} replicas would" if most_rps else ""
        raise InputError(
            f"{rate_rps:,.0f} requests/s: no settings serve more than about {most_rps:,.0f} "
            f"within a p99 of {slo_p99_ms:g} ms{replicas}"
        )
