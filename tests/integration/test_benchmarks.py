"""The benchmarks run, and write what they measured; whether the figures are good is not asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def quick(script, tmp_path):
    """The rows of a smoke run."""
    written = tmp_path / "rows.json"
    command = [sys.executable, str(BENCHMARKS / script), "--quick", "--json", str(written)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 1), done.stderr
    assert written.is_file(), done.stderr
    return json.loads(written.read_text())["rows"]


@pytest.mark.usefixtures("installed")
def test_every_client_is_compared(tmp_path):
    """Each comparison has its rows, and but for pytriton, which has to be fetched, figures."""
    rows = quick("client.py", tmp_path)
    found = {(row["what"], row["concurrency"]) for row in rows}
    against = [f"Client, gRPC : {name}" for name in ("tritonclient.grpc", "pytriton infer_batch")]
    against += [f"Client, HTTP : {name}" for name in ("tritonclient.http", "pytriton infer_sample")]
    against += ["AsyncClient, gRPC : tritonclient.grpc.aio"]
    against += ["AsyncClient, HTTP : tritonclient.http.aio"]
    assert {(what, concurrency) for what in against for concurrency in (1, 4, 16)} <= found
    assert ("gRPC, 4 MB, shared memory : wire", 1) in found
    assert ("HTTP, crossover 4 kB, shared memory : wire", 1) in found
    problems = [row["problem"] for row in rows if "pytriton" not in row["what"]]
    assert not any(problems)
    assert all(row["figures"]["ratio"] > 0 for row in rows if not row["problem"])


@pytest.mark.usefixtures("installed")
def test_the_memory_of_every_way_to_call_is_followed(tmp_path):
    """Both protocols, with infer and with map, each with its growth."""
    rows = quick("client_memory.py", tmp_path)
    assert [row["what"] for row in rows] == ["gRPC, infer", "gRPC, map", "HTTP, infer", "HTTP, map"]
    assert all({"growth_mb", "bytes_per_request", "error"} <= row["drift"].keys() for row in rows)
