"""Rules about batching, queues, sequences and the proof, on configs to catch and healthy twins."""

from __future__ import annotations

import json

import pytest

from tritonkit.verification import VERIFICATION, Verdict, file_sha256

QUEUE = "default_queue_policy { max_queue_size: 64 }"
STEERED = "(float[N,4] x, float[N,1] s) => (float[N,4] y) { y = Add(x, s) }"
START = "kind: CONTROL_SEQUENCE_START fp32_false_true: [ 0, 1 ]"


def batching(inner: str) -> dict[str, str]:
    return {"batching": f"dynamic_batching {{ {QUEUE}\n{inner}\n}}"}


def policy(inner: str) -> dict[str, str]:
    return {"batching": f"dynamic_batching {{\n{inner}\n}}"}


def sequence(inner: str) -> dict[str, str]:
    return {"batching": f"sequence_batching {{\n{inner}\n}}"}


def control(inner: str) -> dict[str, str]:
    return sequence(f'control_input {{ name: "s"\ncontrol {{ {inner}\n}} }}')


LEVELS = "priority_levels: 2 default_priority_level: 1\n"
CACHE = "response_cache { enable: true }"
DELAYS = "default_timeout_microseconds: 9 timeout_action: DELAY"

CASES = [
    (
        "preferred-batch-size",
        batching("preferred_batch_size: [ 4,\n9 #!\n]"),
        batching("preferred_batch_size: [ 4, 8 ]"),
    ),
    ("preferred-batch-size", batching("preferred_batch_size: 0 #!"), {}),
    (
        "preferred-batch-size",
        sequence("oldest { preferred_batch_size: 16 } #!"),
        sequence("oldest { preferred_batch_size: 8 }"),
    ),
    (
        "preferred-for-onnx",
        batching("preferred_batch_size: [ 4, 8 ] #!"),
        {"backend": 'backend: "tensorrt"', **batching("preferred_batch_size: [ 4, 8 ]")},
    ),
    (
        "batching-without-batches",
        {"most": "", "batching": f"dynamic_batching {{ #!\n{QUEUE} }}"},
        {},
    ),
    ("no-scheduler", {"most": "max_batch_size: 8 #!", "batching": ""}, {}),
    (
        "no-scheduler",
        {"most": "max_batch_size: 2 #!", "batching": ""},
        {"most": "max_batch_size: 1", "batching": ""},
    ),
    (
        "queue-delay",
        batching("max_queue_delay_microseconds: 100001 #!"),
        batching("max_queue_delay_microseconds: 100000"),
    ),
    (
        "queue-delay",
        {**batching("max_queue_delay_microseconds: 20000 #!"), "slo_p99_ms": 20.0},
        {**batching("max_queue_delay_microseconds: 19999"), "slo_p99_ms": 20.0},
    ),
    (
        "queue-delay",
        {**batching("max_queue_delay_microseconds: 200000 #!")},
        {**batching("max_queue_delay_microseconds: 200000"), "slo_p99_ms": 500.0},
    ),
    ("unbounded-queue", {"batching": "dynamic_batching { } #!"}, {}),
    ("unbounded-queue", {"batching": "dynamic_batching { } #!"}, {"batching": ""}),
    (
        "unbounded-queue",
        policy(f"default_queue_policy {{ {DELAYS} }} #!"),
        policy("default_queue_policy { default_timeout_microseconds: 9 }"),
    ),
    (
        "unbounded-queue",
        batching(
            "priority_levels: 1 default_priority_level: 1\n"
            "priority_queue_policy { key: 1 value { } } #!"
        ),
        policy(
            "priority_levels: 1 default_priority_level: 1\n"
            "priority_queue_policy { key: 1 value { max_queue_size: 3 } }"
        ),
    ),
    (
        "priorities",
        batching("priority_levels: 2\ndefault_priority_level: 3 #!"),
        batching("priority_levels: 2\ndefault_priority_level: 2"),
    ),
    ("priorities", {"batching": "dynamic_batching { priority_levels: 2 } #!"}, batching(LEVELS)),
    (
        "priorities",
        batching(f"{LEVELS} priority_queue_policy {{ key: 5 value {{ }} }} #!"),
        batching(f"{LEVELS} priority_queue_policy {{ key: 2 value {{ }} }}"),
    ),
    (
        "priority-policy-unused",
        batching("priority_queue_policy { key: 1 value { max_queue_size: 3 } } #!"),
        batching(f"{LEVELS} priority_queue_policy {{ key: 1 value {{ max_queue_size: 3 }} }}"),
    ),
    (
        "preserve-ordering",
        batching(f"{LEVELS} preserve_ordering: true #!"),
        batching("priority_levels: 1 default_priority_level: 1 preserve_ordering: true"),
    ),
    (
        "preserve-ordering",
        policy(f"default_queue_policy {{ {DELAYS} }}\npreserve_ordering: true #!"),
        policy("default_queue_policy { default_timeout_microseconds: 9 } preserve_ordering: true"),
    ),
    (
        "cache-conflict",
        {"more": f"{CACHE} #!\nmodel_transaction_policy {{ decoupled: true }}"},
        {"more": CACHE},
    ),
    ("cache-conflict", {"more": f"{CACHE} #!", **sequence("")}, sequence("")),
    ("cache-needs-server", {"more": f"{CACHE} #!"}, {"more": "response_cache { enable: false }"}),
    ("sequence-control", control("kind: CONTROL_SEQUENCE_START #!"), control(START)),
    (
        "sequence-control",
        control("kind: CONTROL_SEQUENCE_END fp32_false_true: 1 #!"),
        control("kind: CONTROL_SEQUENCE_END bool_false_true: [ false, true ]"),
    ),
    (
        "sequence-control",
        control("kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_FP32 #!"),
        control("kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64"),
    ),
    (
        "sequence-control",
        sequence(f"control_input {{ #!\ncontrol {{ {START} }} }}"),
        control(START),
    ),
    ("sequence-control", control(f"{START} }}\ncontrol {{ {START} #!"), control(START)),
    (
        "sequence-control-input",
        control(f"{START} #!"),
        {**control(START), "graph": STEERED},
    ),
    (
        "sequence-slots",
        sequence("direct { minimum_slot_utilization: 1.5 } #!"),
        sequence("direct { minimum_slot_utilization: 0.5 }"),
    ),
    (
        "sequence-batch-strategy",
        {
            **sequence(""),
            "more": 'parameters { key: "TRITON_BATCH_STRATEGY_PATH" value { } } #!',
        },
        {"more": 'parameters { key: "TRITON_BATCH_STRATEGY_PATH" value { } }'},
    ),
    (
        "not-proved",
        {"most": "max_batch_size: 2 #!"},
        {"most": "max_batch_size: 1"},
    ),
]


@pytest.mark.parametrize(("rule", "broken", "twin"), CASES)
def test_caught_and_twin_passes(check, rule, broken, twin):
    """The rule finds just what is marked, at its line, and nothing in the twin."""
    check(rule, broken, twin)


def test_controls_count_as_inputs(repository):
    """A sequence's control tensor is an input of the model that the config does not list."""
    repository.add(graph=STEERED, **control(START))
    assert repository.found("input-count") == []
    repository.add("other", graph=STEERED)
    assert repository.found("input-count", "other") == [4]


PROOF_RULES = {"unsafe-batching", "batch-over-proof", "not-proved", "proof-unreadable"}


def prove(folder, verdict, most, *, of="model.onnx"):
    digest = file_sha256(folder / "1" / of)
    findings = [] if verdict is Verdict.SAFE else [{"why": "row 0 feels row 1"}]
    record = {
        "sha256": {"model.onnx": digest},
        "check": {"verdict": verdict.value, "max_batch_size": most, "findings": findings},
    }
    (folder / "1" / VERIFICATION).write_text(json.dumps(record))


def proof_problems(repository):
    return [(p.rule, p.line) for p in repository.lint("m") if p.rule in PROOF_RULES]


@pytest.mark.parametrize(
    ("verdict", "most", "problems"),
    [
        (Verdict.SAFE, 8, []),
        (Verdict.SAFE_WITHIN, 9, []),
        (Verdict.SAFE, 7, [("batch-over-proof", 3)]),
        (Verdict.UNSAFE, 0, [("unsafe-batching", 3)]),
        (Verdict.NOT_BATCHABLE, 0, [("unsafe-batching", 3)]),
    ],
)
def test_max_batch_size_against_the_proof(repository, verdict, most, problems):
    """A batch of 8 needs a proof of 8 or more; a model that is not safe is not batched."""
    prove(repository.add(), verdict, most)
    assert proof_problems(repository) == problems


def test_reasons_of_the_proof_are_told(repository):
    """What made a model unsafe is part of the message."""
    prove(repository.add(), Verdict.UNSAFE, 0)
    (problem,) = [p for p in repository.lint("m") if p.rule == "unsafe-batching"]
    assert "was found unsafe (row 0 feels row 1)" in problem.message


@pytest.mark.parametrize("verdict", [Verdict.UNSAFE, Verdict.NOT_BATCHABLE])
def test_single_rows_of_an_unsafe_model(repository, verdict):
    """One row at a time is safe for any model."""
    prove(repository.add(most="max_batch_size: 1"), verdict, 0)
    assert proof_problems(repository) == []


def test_proof_of_another_file(repository):
    """A proof counts for the file that it names."""
    folder = repository.add()
    prove(folder, Verdict.SAFE, 8, of="../config.pbtxt")
    assert proof_problems(repository) == [("not-proved", 3)]


def test_proof_that_cannot_be_read(repository):
    """A spoilt proof is told as such."""
    (repository.add() / "1" / VERIFICATION).write_text("{")
    assert proof_problems(repository) == [("proof-unreadable", 3)]


def test_unsafe_model_that_auto_complete_batches(repository):
    """A batch that auto-complete switches on is a batch."""
    prove(repository.add(most="", batching="", y=""), Verdict.UNSAFE, 0)
    assert proof_problems(repository) == [("unsafe-batching", 1)]
