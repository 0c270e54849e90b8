"""lint: what a server would refuse in a hand-written repository, or serve and be regretted.

    repository.py   lint_repository: every rule on every model, less what comments switch off
    rules.py        the list of rules
    problem.py      Rule, Finding, Problem, Severity
    entry.py        what a rule sees of one model: its config, its versions, its ONNX files
    config_text.py  config.pbtxt as a message; or why it is none
    positions.py    the line of every field
    model_file.py   an ONNX file as ONNX Runtime sees it; or what is wrong with it
    sarif.py        problems in SARIF, for what shows them beside the code

and the rules themselves, plain functions from an Entry to its Findings, by what they are about:
reading.py folders.py tensors.py scheduling.py sequences.py execution.py warmup.py ensembles.py
proof.py. What they hold true was tried on Triton 2.51, or is in the source of its core
(src/model_config_utils.cc, src/backend_model_instance.cc, src/ensemble_scheduler/) and of its
ONNX Runtime backend.
"""
