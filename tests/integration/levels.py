"""A level of load in a process of its own, because Locust patches the one that imports it."""

from __future__ import annotations

import json
import subprocess
import sys

from tritonkit.load.arrivals import POISSON
from tritonkit.samples import Sample

SCRIPT = """
import json, os, sys, time
from tritonkit.load.runner import GeneratorError, Level, LevelInterrupted, run_level
from tritonkit.load.arrivals import parse_arrivals
from tritonkit.client.transport import InferRequest, Tensor
from tritonkit.errors import TritonkitError
address, level, how = json.loads(sys.argv[1])
level["arrivals"] = parse_arrivals(level["arrivals"])
x = Tensor("x", "UINT8", (100,), b"x" * 100)
requests = [InferRequest(f"m{i}", (x,)) for i in range(3)]
start, outcome = time.perf_counter(), {}
policy = os.sched_getscheduler(0)
if "NO_TIMERFD" in os.environ:
    from tritonkit.load import pacer
    pacer._timerfd = lambda: None
if "PIN_TO" in os.environ:
    os.sched_setaffinity(0, {int(os.environ["PIN_TO"])})
    os.nice(10)
try:
    run = run_level(address, requests, Level(**level), **how)
except (GeneratorError, LevelInterrupted) as error:
    run, outcome["raised"] = error.run, f"{type(error).__name__}: {error}"
except TritonkitError as error:
    sys.exit(f"{type(error).__name__}: {error}")
outcome |= {"samples": run.samples, "cpu": run.generator_cpu, "ahead": run.first_in_line}
outcome |= {"took_s": time.perf_counter() - start, "policies": [policy, os.sched_getscheduler(0)]}
json.dump(outcome, sys.stdout)
"""


class Ran:
    """What a level left behind."""

    def __init__(self, outcome):
        self.samples = [Sample(*sample) for sample in outcome["samples"]]
        self.took_s = outcome["took_s"]
        self.cpu = outcome["cpu"]
        self.ahead = outcome["ahead"]
        self.policies = outcome["policies"]
        self.raised = outcome.get("raised", "")

    def kinds(self):
        return {sample.error for sample in self.samples}

    def intended(self):
        return sorted(sample.intended_ns for sample in self.samples)

    def late_ms(self):
        return sorted((s.sent_ns - s.intended_ns) / 1e6 for s in self.samples)


def command(address, mode, offered, duration_s, *, seed=0, arrivals="poisson", **how):
    level = {
        "mode": mode,
        "offered": offered,
        "duration_s": duration_s,
        "seed": seed,
        "arrivals": arrivals,
    }
    how = {"timeout_s": 5.0, **how}
    address = address if "://" in address else f"http://{address}"
    return [sys.executable, "-c", SCRIPT, json.dumps([address, level, how])]


def run(*arguments, **how):
    done = subprocess.run(
        command(*arguments, **how), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return Ran(json.loads(done.stdout))


def expected(rate_rps, duration_s, seed=0):
    """The intended starts of the seeded Poisson process, in nanoseconds."""
    return [int(a.start_s * 1e9) for a in POISSON.starts(rate_rps, duration_s, seed)]
