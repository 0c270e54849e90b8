"""The load generator beside an outside judge, MLPerf LoadGen, on a server with known latencies.

LoadGen's Server scenario is a Poisson process as well, and counts latency from when a query was
due. Its queries are sent by the kit's Client from a pool of threads, in a process that is not
patched for gevent; see benchmarks/loadgen.py, which does the same on a real Triton.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.integration.known_server import DrawnServer

pytestmark = [
    pytest.mark.alone,  # it compares what two generators measure
    pytest.mark.skipif(
        importlib.util.find_spec("mlperf_loadgen") is None,
        reason="mlperf_loadgen is not installed (pip install mlcommons-loadgen)",
    ),
]

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "loadgen.py"
RATE_RPS, DURATION_S, AT_ONCE = 200, 7.0, 400
MEDIAN_S, SPREAD = 0.2, 0.15
"""Of service times that are lognormal: the p99 of 1,400 then scatters by 1.5 %, and the ratio of
two by 2 %. The server does any number at a time, so no latency depends on when others came."""
P99 = 2.326
"""The normal distribution's 99th percentile."""


def seen(by, tmp_path, seed, **how):
    """(requests, p50_ms, p99_ms) by one of the two generators, of a server of its own."""
    service_s = MEDIAN_S * np.random.default_rng(seed).lognormal(0, SPREAD, 3000)
    with DrawnServer([(s, "") for s in service_s.tolist()], **how) as server:
        turn = [by, f"http://{server.address}", "m", RATE_RPS, DURATION_S, seed, AT_ONCE]
        done = subprocess.run(
            [sys.executable, str(BENCHMARK), "--turn", json.dumps(turn)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        requests, p50_ms, p99_ms = json.loads(done.stdout)
        assert requests == server.answers
    return requests, p50_ms, p99_ms


@pytest.fixture(scope="module", params=[{}, {"stall": (2.5, 3.5)}], ids=["steady", "stalled"])
def both(request, tmp_path_factory):
    """How the server was, what we saw of it, and what LoadGen saw of another like it."""
    folder = tmp_path_factory.mktemp("loadgen")
    how = request.param
    return how, seen("ours", folder, 1, **how), seen("loadgen", folder, 2, **how)


def test_both_send_the_rate(both):
    """Both send so many requests as the rate says, the one exactly, the other on average."""
    _, (ours, _, _), (loadgen, _, _) = both
    assert loadgen == RATE_RPS * DURATION_S
    assert ours == pytest.approx(loadgen, rel=0.1)  # four standard deviations


def test_p50(both):
    """The medians of both are within 10 % of each other."""
    _, (_, ours_ms, _), (_, loadgen_ms, _) = both
    assert ours_ms == pytest.approx(loadgen_ms, rel=0.1)


def test_p99(both):
    """So are the 99th percentiles, when the server stalls for a second too."""
    _, (_, _, ours_ms), (_, _, loadgen_ms) = both
    assert ours_ms == pytest.approx(loadgen_ms, rel=0.1)


def test_both_are_right(both):
    """And both are what the distribution says, or the second of silence."""
    how, *generators = both
    p99_ms = 1000 * MEDIAN_S * np.exp(P99 * SPREAD)
    for _, p50_found_ms, p99_found_ms in generators:
        if how:  # of the 14 that arrived in the first 70 ms of it
            assert 1000 < p99_found_ms < 1300
        else:
            assert p50_found_ms == pytest.approx(1000 * MEDIAN_S, rel=0.05)
            assert p99_found_ms == pytest.approx(p99_ms, rel=0.1)


@pytest.mark.usefixtures("installed")
def test_benchmark_runs(tmp_path):
    """On a real Triton the benchmark writes what both saw; whether that is good is not asked."""
    written = tmp_path / "rows.json"
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--quick", "--json", str(written)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in (0, 1) and written.is_file(), done.stderr
    (row,) = json.loads(written.read_text())["rows"]
    assert all(0 < row[by]["p50_ms"] <= row[by]["p99_ms"] for by in ("ours", "loadgen"))
    assert all(low <= ratio <= high for ratio, low, high in (row["p50"], row["p99"]))
