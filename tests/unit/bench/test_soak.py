"""A soak of a real arm that needs no Triton: one that ends, one that loses its server, one that is
interrupted and gone on with.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.unit.bench import by_hand

from tritonkit.bench.progress import Progress, SoakOf
from tritonkit.bench.result import TuningRun
from tritonkit.samples import read_samples

ROOT = Path(__file__).parents[3]
OF = SoakOf("ort_baseline", 100.0, 0.04)
LEVEL_S = OF.minutes * 60 / 30

SCRIPT = """
from tritonkit.load import runner  # first: it prepares the standard library for gevent
import json, os, signal, sys, psutil
from dataclasses import asdict
from pathlib import Path
from tests.unit.bench.by_hand import *
from tritonkit.bench.progress import Progress
from tritonkit.bench.soak import soak

def lose():
    for process in psutil.Process().children(recursive=True):
        process.kill()
        process.wait()

def interrupt():
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, how.get("interrupt_after_s", 0.0001))

how = json.loads(sys.argv[2])

class Watched(Progress):
    def keep_soak_level(self, level):
        super().keep_soak_level(level)
        if how.get("after") == sum(x.resumed == self.resumed for x in self.soak_levels):
            {"lose": lose, "interrupt": interrupt}[how["then"]]()

work = Path(sys.argv[1])
asked = {"rate_rps": how["rate_rps"], "soak_minutes": how["minutes"]}
what, subject, _ = make(work, how.get("nodes", QUICK), **asked, slo_p99_ms=how["slo_p99_ms"])
progress = Watched(work / "progress.jsonl", QUESTION)
tell = lambda line: print(line, file=sys.stderr)
found = soak(what, subject, progress, "ort_baseline", work, tell)
print(json.dumps(asdict(found)))
"""


@dataclass(frozen=True)
class Ran:
    """What a soak left behind."""

    status: int
    soak: dict
    told: str


@pytest.fixture
def soaked(tmp_path):
    """Soak the arm, in a process of its own. then: `lose` the server, or `interrupt`, once
    `after` levels are kept.
    """
    progress = Progress(tmp_path / "progress.jsonl", by_hand.QUESTION)
    progress.keep_tuning("ort_baseline", (TuningRun(1, 1, 1.0, None, True),))

    def run(**how):
        how = {"rate_rps": OF.rate_rps, "minutes": OF.minutes, "slo_p99_ms": 50.0, **how}
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tmp_path), json.dumps(how)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=90,
        )
        return Ran(done.returncode, json.loads(done.stdout or "{}"), done.stderr)

    return run


def kept(work):
    return Progress(work / "progress.jsonl", by_hand.QUESTION).soak_levels


def files(work):
    return {path.name: path.read_bytes() for path in (work / "samples").iterdir()}


def test_whole(soaked, tmp_path):
    """A soak goes on for its time, and each level is in the series and on disk."""
    ran = soaked()
    assert ran.status == 0, ran.told
    assert ran.soak["minutes"] == pytest.approx(OF.minutes) and ran.soak["errors"] == 0
    assert len(ran.soak["at_s"]) >= 2
    assert ran.soak["at_s"] == sorted(ran.soak["at_s"])
    assert ran.soak["at_s"][-1] < OF.minutes * 60
    assert [level.at_s for level in kept(tmp_path)] == ran.soak["at_s"]
    assert len(files(tmp_path)) == len(ran.soak["at_s"])
    assert not any("died" in found["text"] for found in ran.soak["findings"])


def test_server_dies(soaked):
    """A server that dies ends the soak with a finding, and what was measured until then."""
    ran = soaked(after=4, then="lose")
    assert ran.status == 0, ran.told
    first = ran.soak["findings"][0]
    assert first["series"] == "server" and "the server died after 0.0" in first["text"]
    assert len(ran.soak["rss_bytes"]) == 4 and 0 < ran.soak["minutes"] < OF.minutes
    assert "Traceback" not in ran.told


def test_death_is_not_forgotten(soaked):
    """Gone on with, a soak whose server died is over: a fresh server would hide it."""
    first, again = soaked(after=2, then="lose"), soaked()
    assert again.soak == first.soak and again.told == ""


def test_interrupted_in_a_level(soaked, tmp_path):
    """Ctrl-C in a level keeps those before it, and the samples of that one under another name."""
    ran = soaked(minutes=1.0, after=1, then="interrupt", interrupt_after_s=1.2)
    assert ran.status != 0 and ran.soak == {}
    assert len(kept(tmp_path)) == 1
    assert set(files(tmp_path)) == {"soak-001.csv.gz", "soak-002.csv.gz.cut"}
    assert read_samples(tmp_path / "samples" / "soak-002.csv.gz.cut")


def test_gone_on_with(soaked, tmp_path):
    """What was soaked before Ctrl-C counts, is as it was, and is not soaked again."""
    soaked(after=4, then="interrupt")
    before, written = kept(tmp_path), files(tmp_path)
    ran = soaked()
    assert ran.status == 0, ran.told
    assert len(before) >= 4
    assert ran.soak["at_s"][: len(before)] == [level.at_s for level in before]
    assert ran.soak["at_s"] == sorted(ran.soak["at_s"])
    assert ran.soak["at_s"][len(before)] >= before[-1].at_s + LEVEL_S
    assert written.items() <= files(tmp_path).items()
    assert any("interrupted" in found["text"] for found in ran.soak["findings"])


def test_done_is_not_done_again(soaked):
    """A soak that is done starts no server when the comparison is gone on with."""
    assert soaked().soak == (again := soaked()).soak
    assert again.told == ""


def test_another_rate_is_another_soak(soaked, tmp_path):
    """Levels at another rate are not taken for this soak's, and not written over."""
    soaked(after=3, then="lose")
    written = files(tmp_path)
    ran = soaked(rate_rps=50.0)
    assert ran.status == 0 and ran.soak["rate_rps"] == 50.0
    assert len(kept(tmp_path)) == len(ran.soak["at_s"]) + 3
    assert written.items() <= files(tmp_path).items()
    assert not any("died" in found["text"] for found in ran.soak["findings"])


def test_connections(soaked, tmp_path):
    """As many requests are in flight as a budget of seconds takes, not 128."""
    soaked(
        **{"rate_rps": 1000.0, "slo_p99_ms": 10_000.0, "minutes": 0.25, "nodes": by_hand.SLOW},
        **{"after": 1, "then": "lose"},
    )
    samples = read_samples(tmp_path / "samples" / "soak-001.csv.gz")
    at = max(sample.sent_ns for sample in samples)
    assert sum(sample.done_ns > at for sample in samples) > 150
