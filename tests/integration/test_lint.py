"""lint tells the truth: the real Triton refuses what it calls errors, and loads what it passes."""

from __future__ import annotations

import json
import urllib.request

import onnx
import pytest
from onnx.parser import parse_model

from tritonkit.repository.lint.repository import lint_repository
from tritonkit.server.embedded import EmbeddedTriton

BLOCKS = {
    "backend": 'backend: "onnxruntime"',
    "most": "max_batch_size: 8",
    "x": 'input { name: "x" data_type: TYPE_FP32 dims: 4 }',
    "y": 'output { name: "y" data_type: TYPE_FP32 dims: 4 }',
    "group": "instance_group { count: 1 kind: KIND_CPU }",
    "threads": 'parameters { key: "intra_op_thread_count" value { string_value: "1" } }',
    "more": "",
}
RELU = "(float[N,4] x) => (float[N,4] y) { y = Relu(x) }"
FIXED = "(float[1,4] x) => (float[1,4] y) { y = Relu(x) }"
DATA = 'inputs { key: "x" value { data_type: TYPE_FP32 dims: 4 zero_data: true } }'
WARM = f'model_warmup {{ name: "w" batch_size: 8 {DATA} }}'
ENSEMBLE = """\
platform: "ensemble"
max_batch_size: 8
input { name: "a" data_type: TYPE_FP32 dims: 4 }
output { name: "b" data_type: TYPE_FP32 dims: 4 }
ensemble_scheduling { step { model_name: "healthy" model_version: -1
  input_map { key: "x" value: "a" } output_map { key: "y" value: "b" } } }
"""

# By name: the rule that must find an error (None: there is none), and the blocks or the text.
MODELS = {
    "healthy": (None, {}),
    "whole": (None, {"most": "", "x": BLOCKS["x"].replace("4", "[-1,4]"),
                     "y": BLOCKS["y"].replace("4", "[ -1, 4 ]")}),
    "unbatchable": (None, {"most": "dynamic_batching { }", "graph": FIXED,
                           "x": BLOCKS["x"].replace("4", "[1,4]"),
                           "y": BLOCKS["y"].replace("4", "[1,4]")}),
    "some_versions": (None, {"more": "version_policy { specific { versions: [ 1, 3 ] } }"}),
    "twice": (None, {"more": BLOCKS["y"]}),
    "latin": (None, {"more": "# caf\udce9"}),
    "warm": (None, {"more": WARM}),
    "ensemble": (None, ENSEMBLE),
    "syntax": ("config-syntax", {"more": "optimization {"}),
    "order_mark": ("config-syntax", {"backend": "\ufeff" + BLOCKS["backend"]}),
    "unknown": ("unknown-field", {"most": "max_batchsize: 8"}),
    "schedulers": ("conflicting-fields", {"more": "dynamic_batching { } sequence_batching { }"}),
    "other_name": ("name-mismatch", {"more": 'name: "healthy"'}),
    "no_dims": ("tensor-incomplete", {"x": 'input { name: "x" data_type: TYPE_FP32 }'}),
    "reshaped": ("reshape", {"x": BLOCKS["x"].replace("4", "4 reshape { shape: 3 }")}),
    "repeats": ("dims-repeat-batch", {"x": BLOCKS["x"].replace("4", "[-1,4]")}),
    "fixed": ("no-batch-axis", {"graph": FIXED}),
    "other_type": ("data-type", {"y": BLOCKS["y"].replace("FP32", "FP64")}),
    "preferred": ("preferred-batch-size", {"more": "dynamic_batching { preferred_batch_size: 9 }"}),
    "priority": ("priorities", {"more": "dynamic_batching { priority_levels: 2 }"}),
    "words": ("parameter-value", {"threads": BLOCKS["threads"].replace("1", "two")}),
    "absent_version": ("no-version", {"more": "version_policy { specific { versions: 3 } }"}),
    "absent_file": ("model-file-missing", {"more": 'default_model_filename: "m.onnx"'}),
    "absent_label": ("label-file", {"y": BLOCKS["y"].replace("4", '4 label_filename: "l.txt"')}),
    "warm_more": ("warmup-batch-size", {"more": WARM.replace("8", "9")}),
    "warm_less": ("warmup-inputs", {"more": 'model_warmup { name: "w" batch_size: 1 }'}),
    "cpu_gpu": ("instance-gpus", {"group": "instance_group { kind: KIND_CPU count: 1 gpus: 0 }"}),
    "ensemble_of_none": ("ensemble-step", ENSEMBLE.replace("healthy", "nobody")),
    "ensemble_unmapped": ("ensemble-map", ENSEMBLE.replace('key: "x"', 'key: "q"')),
    "ensemble_typed": ("ensemble-tensor", ENSEMBLE.replace("FP32", "FP16", 1)),
    "ensemble_large": ("ensemble-batch-size", ENSEMBLE.replace("8", "9", 1)),
}  # fmt: skip


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    path = tmp_path_factory.mktemp("lint") / "repository"
    for name, (_, given) in MODELS.items():
        folder = path / name
        (folder / "1").mkdir(parents=True)
        if isinstance(given, str):
            text = given
        else:
            blocks = {**BLOCKS, **given}
            graph = blocks.pop("graph", RELU)
            model = parse_model(f'<ir_version: 9, opset_import: ["" : 17]> g {graph}')
            onnx.save(model, folder / "1" / "model.onnx")
            text = "\n".join(blocks.values())
        (folder / "config.pbtxt").write_bytes(text.encode("utf-8", "surrogateescape"))
    return path


@pytest.fixture(scope="module")
def ready(installed, repository):
    """The models that Triton serves; it is told to leave out those that it cannot load."""
    options = ("--exit-on-error=false", "--strict-readiness=false")
    log = repository.parent / "triton.log"
    with EmbeddedTriton(repository, log=log, drain=False, options=options) as triton:
        index = f"http://{triton.endpoints.http}/v2/repository/index"
        with urllib.request.urlopen(urllib.request.Request(index, method="POST")) as response:
            return {m["name"] for m in json.load(response) if m.get("state") == "READY"}


@pytest.fixture(scope="module")
def errors(repository):
    found: dict[str, set[str]] = {name: set() for name in MODELS}
    for problem in lint_repository(repository, cpus=64, slo_p99_ms=None):
        if problem.severity == "error":
            found[problem.file.parent.name].add(problem.rule)
    return found


@pytest.mark.parametrize("name", [name for name, (rule, _) in MODELS.items() if rule])
def test_errors_are_refused(ready, errors, name):
    """What lint calls an error Triton does not load."""
    assert MODELS[name][0] in errors[name]
    assert name not in ready


@pytest.mark.parametrize("name", [name for name, (rule, _) in MODELS.items() if not rule])
def test_what_passes_is_loaded(ready, errors, name):
    """What lint finds no error in Triton loads."""
    assert errors[name] == set()
    assert name in ready


def test_examples_have_no_errors(packaged_examples):
    """The kit's own examples are passed; that their queues have no bound is true."""
    problems = lint_repository(packaged_examples.repository, cpus=2, slo_p99_ms=50.0)
    told = {problem.rule for problem in problems if problem.severity != "note"}
    assert told <= {"unbounded-queue"}
