"""Resources, replicas and targets of what was read."""

from pathlib import Path

import pytest

from tritonkit.bench.demand import demand
from tritonkit.deploy.decide import COPIES, INSTANCE_MIB, MIB, SERVER_MIB, SHM_MIB, decide
from tritonkit.deploy.needs import Need
from tritonkit.deploy.planned import Planned
from tritonkit.errors import InputError
from tritonkit.plan.settings import Settings
from tritonkit.repository.config import DynamicBatching


def need(model="m", *, instances=1, threads=1, delay_us=0, versions=1, file_bytes=0, gpus=0):
    settings = Settings(8, DynamicBatching(max_queue_delay_us=delay_us), instances, threads)
    return Need(model, settings, threads, versions, file_bytes, gpus)


def plan(model="m", *, interval_rps=(900.0, None), queue_ms=4.0, remark=""):
    path = Path(f"plans/{model}/plan.json")
    return Planned(path, model, 50.0, interval_rps, queue_ms, "A CPU, 4 CPUs", remark)


def target(one, planned=None):
    (found,) = decide([one], {"m": planned} if planned else {}, {}).targets
    return found


def test_cpus():
    """The CPUs are the sum over all models of instances × threads."""
    assert decide([need("a", instances=2, threads=3), need("b", threads=4)], {}, {}).cpus == 10


def test_memory_instances():
    """Each instance has the weights of its own."""
    size = 300 * MIB
    one = decide([need(file_bytes=size)], {}, {}).memory_mib
    three = decide([need(file_bytes=size, instances=3)], {}, {}).memory_mib
    more = 2 * (COPIES * 300 + INSTANCE_MIB)
    assert more <= three - one < more + 256


def test_memory_covers():
    """There is room for the server, /dev/shm and all instances; it is in steps of 256 MiB."""
    found = decide([need(file_bytes=MIB + 1, instances=2)], {}, {}).memory_mib
    assert found >= SERVER_MIB + SHM_MIB + 2 * INSTANCE_MIB + 2 * COPIES
    assert found % 256 == 0


def test_gpus():
    """Models share the GPUs of their pod."""
    assert decide([need("a", gpus=1), need("b", gpus=2), need("c")], {}, {}).gpus == 2


def test_target_follows_plan():
    """The autoscaler keeps the wait that was measured, and says where."""
    found = target(need(), plan(queue_ms=4.321))
    assert found.queue_us == 4321
    assert "plans/m/plan.json" in str(found) and "not measured" not in str(found)


def test_target_unmeasured():
    """Without a plan the wait is 10 ms, and the line says that it is not measured."""
    found = target(need())
    assert found.queue_us == 10_000
    assert "not measured: give --plan" in str(found)


def test_target_no_level():
    """A plan without a level that counts is as none, and the line says why."""
    assert "not measured: the plan has no such level" in str(target(need(), plan(queue_ms=None)))


@pytest.mark.parametrize("planned", [None, plan(queue_ms=12.0)])
def test_target_above_delay(planned):
    """A wait below two queue delays is raised: an idle batcher waits for one."""
    found = target(need(delay_us=7000), planned)
    assert found.queue_us == 14_000
    assert "raised to 2 queue delays" in str(found)


def test_target_least():
    """A wait of microseconds is raised to 1 ms."""
    assert target(need(), plan(queue_ms=0.05)).queue_us == 1000


def test_replicas_by_demand():
    """The replicas at a rate are those that a comparison counts."""
    found = decide([need()], {"m": plan(interval_rps=(900.0, 2000.0))}, {"m": 8000.0})
    assert found.min_replicas == demand((), (900.0, 2000.0), 8000.0, None).replicas == 10
    assert found.max_replicas == 20


def test_replicas_of_several():
    """The model that needs most replicas decides."""
    plans = {"a": plan("a"), "b": plan("b")}
    found = decide([need("a"), need("b")], plans, {"a": 800.0, "b": 5000.0})
    assert found.min_replicas == 7


def test_replicas_without_rate():
    """Without a rate there are two to ten."""
    found = decide([need()], {}, {})
    assert (found.min_replicas, found.max_replicas) == (2, 10)


def test_rate_without_plan():
    """A rate without a plan of that model is refused."""
    with pytest.raises(InputError, match="'m' holds is not known; give the --plan"):
        decide([need()], {}, {"m": 100.0})


@pytest.mark.parametrize("interval", [None, (0.0, 100.0)])
def test_rate_without_capacity(interval):
    """A rate is refused where the plan measured none that is held for sure."""
    with pytest.raises(InputError, match="measured no rate that 'm' holds for sure"):
        decide([need()], {"m": plan(interval_rps=interval)}, {"m": 100.0})


def test_absurd_rate():
    """A rate for more than a thousand replicas is refused."""
    with pytest.raises(InputError, match="take more than 1,000 replicas"):
        decide([need()], {"m": plan()}, {"m": 1e300})


def test_reservations():
    """What the figures hold for is said: the machine, models side by side, another conclusion."""
    plans = {"a": plan("a"), "b": plan("b", remark="Keep the session.")}
    said = "\n".join(decide([need("a"), need("b")], plans, {}).because)
    assert "measured on A CPU, 4 CPUs" in said
    assert "measured alone" in said
    assert "plans/b/plan.json is not for Triton: Keep the session." in said
