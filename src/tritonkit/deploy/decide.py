"""What one pod gets, how many there are, and what the autoscaler keeps: in numbers, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tritonkit.bench.demand import demand
from tritonkit.deploy.needs import Need
from tritonkit.deploy.planned import Planned
from tritonkit.errors import InputError
from tritonkit.plan.settings import lane_words

MIB = 2**20

# Of the server itself, and of /dev/shm, which is in the pod's memory too.
SERVER_MIB = 512
SHM_MIB = 1024
# Beside its weights an instance has ONNX Runtime, what a run of the largest batch fills, and, where
# the backend is in Python, a process.
INSTANCE_MIB = 256
# An instance has the weights once, and at first the file that they are read from, or a copy in an
# order of its own.
COPIES = 2
ROUND_MIB = 256

# The wait that is kept where nothing was measured.
DEFAULT_QUEUE_MS = 10.0
# Below it a wait is the batcher's own time, and says nothing of load.
LEAST_QUEUE_MS = 1.0
# An idle batcher waits for the whole delay: a target near it would never let a replica go.
DELAYS = 2

LEAST_REPLICAS = 2
MOST_REPLICAS = 10
# More is a slip in the rate.
_POSSIBLE_REPLICAS = 1000


@dataclass(frozen=True)
class Target:
    """What the autoscaler keeps of one model: the mean wait of its requests, in microseconds."""

    model: str
    queue_us: int
    because: str

    def __str__(self) -> str:
        """What it asks for, in a line."""
        wait = f"{self.queue_us / 1e3:g} ms"
        return f"a replica more when requests for {self.model} wait over {wait}, {self.because}"


@dataclass(frozen=True)
class Decision:
    """One kind of pod and how many of it. because: why, but for the targets, line by line."""

    cpus: int
    memory_mib: int
    gpus: int
    min_replicas: int
    max_replicas: int
    targets: tuple[Target, ...]
    because: tuple[str, ...]


def decide(
    needs: Sequence[Need], plans: Mapping[str, Planned], rates_rps: Mapping[str, float]
) -> Decision:
    """plans, rates_rps: by model. InputError for a rate of a model whose capacity is not known."""
    cpus = sum(need.cpus for need in needs)
    memory_mib = SERVER_MIB + SHM_MIB + sum(_memory_mib(need) for need in needs)
    memory_mib = -(-memory_mib // ROUND_MIB) * ROUND_MIB
    targets = tuple(_target(need, plans.get(need.model)) for need in needs)
    replicas = {model: _replicas(model, rate, plans) for model, rate in rates_rps.items()}
    least = max([LEAST_REPLICAS, *(count for count, _ in replicas.values())])
    most = max(MOST_REPLICAS, 2 * least)
    per_model = ", ".join(f"{need.model}: {_threads_words(need)}" for need in needs)
    why_replicas = "; ".join(f"{model}: {why}" for model, (_, why) in replicas.items())
    return Decision(
        cpus=cpus,
        memory_mib=memory_mib,
        gpus=max((need.gpus for need in needs), default=0),
        min_replicas=least,
        max_replicas=most,
        targets=targets,
        because=(
            f"{_many(cpus, 'CPU')} ({per_model}), requests equal to limits so that no thread is "
            "throttled",
            f"{memory_mib} MiB of memory ({SERVER_MIB} for the server, {SHM_MIB} for /dev/shm, and "
            f"for each instance {INSTANCE_MIB} and {COPIES} × its files)",
            f"{least} to {most} replicas "
            f"({why_replicas or 'two, so that one may go; --rate-rps and --plan make it more'})",
            *_reservations(plans),
        ),
    )


def _memory_mib(need: Need) -> int:
    # All versions' files are in file_bytes, each is loaded by as many instances.
    files_mib = -(-COPIES * need.file_bytes * need.settings.instances // MIB)
    return files_mib + INSTANCE_MIB * need.settings.instances * need.versions


def _target(need: Need, plan: Planned | None) -> Target:
    batching = need.settings.dynamic_batching
    delay_us = batching.max_queue_delay_us if batching else 0
    least_us = max(DELAYS * delay_us, round(LEAST_QUEUE_MS * 1e3))
    if plan is not None and plan.queue_ms is not None:
        wanted_us = round(plan.queue_ms * 1e3)
        because = f"as measured at 60 to 80 % of its capacity ({plan.path})"
    else:
        wanted_us = round(DEFAULT_QUEUE_MS * 1e3)
        why = "the plan has no such level that counts" if plan else "give --plan"
        because = f"which is not measured: {why}"
    if wanted_us < least_us:
        why = f"{DELAYS} queue delays" if least_us == DELAYS * delay_us else "the least"
        because += f"; raised to {why} from {wanted_us / 1e3:g} ms"
    return Target(need.model, max(wanted_us, least_us), because)


def _replicas(model: str, rate_rps: float, plans: Mapping[str, Planned]) -> tuple[int, str]:
    """By the rule of a comparison: the low end of what one holds, and one to spare."""
    if model not in plans:
        raise InputError(
            f"--rate-rps: how much one replica of '{model}' holds is not known; give the --plan "
            f"of '{model}', made with tritonkit plan"
        )
    interval = plans[model].capacity_interval_rps
    count = demand((), interval, rate_rps, None).replicas
    if interval is None or count is None:
        raise InputError(
            f"--rate-rps: {plans[model].path} measured no rate that '{model}' holds for sure; "
            "plan again, with a longer --slo-p99-ms or on a quiet machine"
        )
    if count > _POSSIBLE_REPLICAS:
        raise InputError(
            f"--rate-rps: {rate_rps:g} requests/s take more than {_POSSIBLE_REPLICAS:,} replicas "
            f"of '{model}', one of which holds {interval[0]:,.0f}; give a lower rate"
        )
    return count, (
        f"{rate_rps:,.0f} requests/s, one holds {interval[0]:,.0f} for sure within a p99 of "
        f"{plans[model].slo_p99_ms:g} ms, and one to spare"
    )


def _reservations(plans: Mapping[str, Planned]) -> list[str]:
    machines = sorted({plan.machine for plan in plans.values()})
    lines = [f"measured on {', '.join(machines)}: nodes of another kind differ"] if plans else []
    if len(plans) > 1:
        lines.append("each model was measured alone; in one pod they share caches and memory")
    for plan in plans.values():
        if plan.remark:
            lines.append(f"{plan.path} is not for Triton: {plan.remark}")
    return lines


def _threads_words(need: Need) -> str:
    words = lane_words(need.threads, need.settings.instances)
    return words if need.versions == 1 else f"{words} × {need.versions} versions"


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
