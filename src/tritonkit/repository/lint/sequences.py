"""Rules about sequence batching."""

from __future__ import annotations

from collections.abc import Iterator

from tritonclient.grpc import model_config_pb2 as schema

from tritonkit.repository.backend_rules import control_refusals
from tritonkit.repository.lint.entry import Entry
from tritonkit.repository.lint.problem import Finding

_REFUSED = "Triton does not load the model"
_VALUES = ("int32_false_true", "fp32_false_true", "bool_false_true")
_CORRID_TYPES = ("TYPE_UINT64", "TYPE_INT64", "TYPE_UINT32", "TYPE_INT32", "TYPE_STRING")


def sequence_control(entry: Entry) -> Iterator[Finding]:
    """A control tensor of a sequence without a name, its values or a fitting model input."""
    batching = entry.message.sequence_batching
    kinds: set[int] = set()
    names: set[str] = set()
    for i, tensor in enumerate(batching.control_input):
        where = ("sequence_batching", "control_input", i)
        if not tensor.name or tensor.name in names:
            what = "is there twice" if tensor.name else "has no name"
            message = f"control input '{tensor.name}' {what}"
            yield Finding(entry.line(*where), message, _REFUSED, "give each its own name")
        names.add(tensor.name)
        for j, control in enumerate(tensor.control):
            at = entry.line(*where, "control", j)
            kind = control.Kind.Name(control.kind)
            if control.kind in kinds:
                yield Finding(at, f"{kind} is there twice", _REFUSED, "keep one of them")
            kinds.add(control.kind)
            written = [name for name in _VALUES if getattr(control, name)]
            if control.kind == control.CONTROL_SEQUENCE_CORRID:
                known = control.data_type in schema.DataType.values()
                name = schema.DataType.Name(control.data_type) if known else "unknown"
                if written or name not in _CORRID_TYPES:
                    message = f"{kind} of type {name}" + (f" has {written[0]}" if written else "")
                    remedy = f"write data_type as one of {', '.join(_CORRID_TYPES)}, and no values"
                    yield Finding(at, message, _REFUSED, remedy)
            elif len(written) != 1 or len(getattr(control, written[0])) != 2:
                message = f"{kind} needs one of {', '.join(_VALUES)}, with two values"
                remedy = "write fp32_false_true: [ 0, 1 ], or the same in the model's own type"
                yield Finding(at, message, _REFUSED, remedy)


def sequence_control_input(entry: Entry) -> Iterator[Finding]:
    """A control tensor of a sequence that is no input of one element in the model."""
    found: dict[Finding, None] = {}
    for _, model in entry.loadable():
        config = entry.as_json(entry.max_batch_size(model))
        for refusal in control_refusals(config, model.inputs):
            remedy = "export the model with an input of this name and shape [batch, 1]"
            at = entry.line(*refusal.where)
            found[Finding(at, refusal.message, _REFUSED, remedy)] = None
    yield from found


def sequence_slots(entry: Entry) -> Iterator[Finding]:
    """A minimum_slot_utilization outside 0 to 1."""
    share = entry.message.sequence_batching.direct.minimum_slot_utilization
    if not 0 <= share <= 1:
        yield Finding(
            entry.line("sequence_batching", "direct", "minimum_slot_utilization"),
            f"minimum_slot_utilization is {share:g}",
            _REFUSED,
            "write a share from 0 to 1",
        )


def sequence_batch_strategy(entry: Entry) -> Iterator[Finding]:
    """A batching strategy of one's own beside sequence batching."""
    key = "TRITON_BATCH_STRATEGY_PATH"
    if entry.message.HasField("sequence_batching") and key in entry.message.parameters:
        what = f"{key} beside sequence_batching"
        yield Finding(entry.line("parameters", key, "key"), what, _REFUSED, "take one of them out")
