"""What other processes took of the CPUs, by the system's own counters."""

import os
import subprocess
import sys
import time

import pytest

from tritonkit.bench.others import Look, look, taken

SPIN = "import time; t = time.process_time()\nwhile time.process_time() - t < {}: pass"


def between(**after):
    """Two looks at two CPUs, 10 s apart: 20 s of time, of which nothing is used."""
    first = Look(0.0, 2, 100.0, 500.0, 1.0, {1: 7.0})
    second = {"at_s": 10.0, "cpus": 2, "used": 100.0, "counted": 520.0, "stolen": 1.0}
    return first, Look(**{**second, "own": {1: 7.0}, **after})


def test_nothing_ran():
    """An idle machine has nothing taken from it."""
    assert taken(*between()) == (0.0, 0.0)


def test_own_processes_are_no_others():
    """What the generator and the servers used is not held against the machine."""
    assert taken(*between(used=108.0, own={1: 15.0})).others == 0.0


def test_others():
    """What is used beyond one's own is the others', as a share of all CPUs."""
    assert taken(*between(used=109.0, own={1: 12.0})).others == pytest.approx(0.2)


def test_a_server_that_started_meanwhile():
    """A process that was not there before is one's own with all that it used."""
    assert taken(*between(used=109.0, own={1: 7.0, 2: 9.0})).others == 0.0


def test_stolen():
    """What the hypervisor took is a share of all CPUs too, and nobody's use."""
    assert taken(*between(stolen=4.0)) == (0.0, pytest.approx(0.15))


def test_stolen_is_not_known():
    """A system without that counter says nothing of it."""
    assert taken(*between(stolen=None)) == (0.0, None)


def test_counters_are_coarse():
    """A process that is ahead of its CPU's counter makes no share below 0."""
    assert taken(*between(used=100.1, own={1: 7.3})).others == 0.0


def test_a_kernel_that_counts_nothing():
    """Counters that stand still say nothing, not that nothing ran."""
    assert taken(*between(counted=500.0)) == (None, None)


def test_a_system_without_counters():
    """Where there was nothing to look at, nothing is known."""
    assert taken(None, None) == (None, None)


def test_a_cpu_that_is_not_there():
    """A CPU that the system does not count cannot be looked at."""
    assert look([100_000]) is None


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep other counters")
def test_a_child_is_ones_own():
    """What a child uses is seen as one's own, by a real look at this machine."""
    cpus = sorted(os.sched_getaffinity(0))
    child = subprocess.Popen([sys.executable, "-c", SPIN.format(0.5) + "\ninput()"], stdin=-1)
    try:
        before = look(cpus)
        while (after := look(cpus)).own[child.pid] < 0.5:
            time.sleep(0.05)  # until it is done, however long it has to wait for a CPU
    finally:
        child.communicate(b"\n")
    assert before.own.get(child.pid, 0.0) < 0.5
    assert after.used - before.used > 0.3
