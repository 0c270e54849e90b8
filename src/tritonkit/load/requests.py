"""What a run sends: real inputs or random values, in requests of so many rows."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from tritonkit.client.spec import ModelSpec
from tritonkit.client.tensors import encode
from tritonkit.client.transport import InferRequest, Region, Tensor, Wanted
from tritonkit.errors import InputError
from tritonkit.load.real_inputs import MOST_BYTES, read_payloads_from
from tritonkit.load.shares import Shares
from tritonkit.payloads import RANDOM_PAYLOADS, Payload, random_payloads
from tritonkit.signature import ModelSignature, TensorSpec

RANDOM_VALUES = "random values of the model's signature"

_OVERHEAD_BYTES = 2000
"""What a request takes in memory besides its tensors."""

_MOST_BY_DEFAULT = 1000

ONE = Shares(((1, 1, 1.0),))
"""One row in each request."""

_USUAL_LENGTH = Shares(((16, 16, 1.0),))


@dataclass(frozen=True)
class Spread:
    """The least, the middle and the most of some numbers."""

    least: int
    median: float
    most: int

    def __str__(self) -> str:
        """`2048`, or `16 to 128, median 64`."""
        if self.least == self.most:
            return f"{self.least}"
        return f"{self.least} to {self.most}, median {f'{self.median:.1f}'.removesuffix('.0')}"


@dataclass(frozen=True)
class RequestMix:
    """What is in the requests of a run, which sends them in turn, again and again.

    source: where the values come from. count: requests; distinct: different ones among them. rows:
    how many requests have so many rows. lengths: the sizes of dynamic dimensions other than the
    batch, None if there are none. bytes_per_request: of the inputs' tensors. warnings: why what is
    measured with them may not hold for others, one line each.
    """

    source: str
    count: int
    distinct: int
    rows: Mapping[str, int]
    lengths: Spread | None
    bytes_per_request: Spread
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        """One line, without the warnings."""
        distinct = "all different" if self.distinct == self.count else f"{self.distinct} different"
        rows = ", ".join(f"{n} of {_counted(int(size), 'row')}" for size, n in self.rows.items())
        lengths = "" if self.lengths is None else f"; lengths {self.lengths}"
        return (
            f"{_counted(self.count, 'request')} of {self.source}, {distinct}: {rows}{lengths}; "
            f"{self.bytes_per_request} bytes each"
        )


def make_requests(
    spec: ModelSpec,
    path: Path | None = None,
    *,
    rows: Shares = ONE,
    lengths: Shares | None = None,
    distinct: int | None = None,
    seed: int = 0,
) -> tuple[list[InferRequest], RequestMix]:
    """Requests for all outputs of a model, and what is in them. The same for the same seed.

    path: real inputs, as `read_payloads_from` reads them; without one the values are random.
    lengths: of the dynamic dimensions of random values. distinct: how many different requests; by
    default all of the real inputs. Requests of several rows are put together from real ones of
    the same shape. InputError if that cannot be.
    """
    if distinct is not None and distinct < 1:
        raise InputError(f"{distinct} distinct requests: there must be at least 1")
    _require_memory(0, distinct or 0)
    _require_rows(spec, rows)
    if lengths is not None:
        _require_lengths(spec, path)
    random = np.random.default_rng(seed)
    dims: list[int] = []
    if path is None:
        asked = [rows, lengths or _USUAL_LENGTH]
        count = distinct or _enough(RANDOM_PAYLOADS, *asked)
        sizes, dims = (shares.draw(count, random) for shares in asked)
        payloads = _draw(spec, sizes, dims, random)
    else:
        singles = read_payloads_from(path, spec)
        if rows.most == 1:
            payloads = iter(_choose(singles, distinct, random))
            sizes = [1]
        else:
            count = distinct or _enough(max(len(singles), RANDOM_PAYLOADS), rows)
            sizes = rows.draw(count, random)
            payloads = _combine(singles, sizes, random)
    requests = [_request(spec, payload) for payload in payloads]
    mix = describe(spec, requests, RANDOM_VALUES if path is None else str(path))
    warnings = list(mix.warnings)
    if distinct is not None and mix.distinct < distinct:
        warnings.append(
            f"{distinct} different requests were asked for, and there are only {mix.distinct}"
        )
    for what, shares, drawn in (("rows", rows, sizes), ("lengths", lengths, dims)):
        if shares is not None and (missing := shares.left_out(drawn)):
            warnings.append(
                f"no request has {' or '.join(missing)} {what}, because there are only "
                f"{len(requests)}; it takes {shares.enough} distinct ones"
            )
    return requests, replace(mix, warnings=tuple(warnings))


def describe(spec: ModelSpec, requests: Sequence[InferRequest], source: str) -> RequestMix:
    """What is in the requests of a run. source: where their values come from."""
    shapes = [{tensor.name: tensor.shape for tensor in request.inputs} for request in requests]
    rows = Counter(
        next(iter(shape.values()))[0] if spec.batches and shape else 1 for shape in shapes
    )
    lengths = [
        shape[name][axis] for shape in shapes for name, axis in _dynamic(spec) if name in shape
    ]
    distinct = len(set(map(_digest, requests)))
    warnings = []
    if distinct == 1:
        warnings.append(
            "every request is the same: caches and models whose work depends on their input may "
            "answer others slower; send different ones"
        )
    return RequestMix(
        source=source,
        count=len(requests),
        distinct=distinct,
        rows={str(size): rows[size] for size in sorted(rows)},
        lengths=_spread(lengths) if lengths else None,
        bytes_per_request=_spread([sum(map(_size, request.inputs)) for request in requests]),
        warnings=tuple(warnings),
    )


def _require_rows(spec: ModelSpec, rows: Shares) -> None:
    if rows.most > 1 and not spec.batches:
        raise InputError(f"{rows.most} rows: {spec.label} does not batch; leave the rows out")
    if spec.batches and rows.most > spec.max_batch_size:
        raise InputError(
            f"{rows.most} rows: {spec.label} takes at most {spec.max_batch_size} in one request"
        )


def _require_lengths(spec: ModelSpec, path: Path | None) -> None:
    if path is not None:
        raise InputError(f"{path}: real inputs have their own lengths; leave the lengths out")
    if not _dynamic(spec):
        known = ", ".join(map(str, spec.inputs.values())) or "none"
        raise InputError(f"{spec.label} has no inputs of a dynamic length; its inputs are {known}")


def _dynamic(spec: ModelSpec) -> list[tuple[str, int]]:
    """(input, axis) of each dynamic dimension that is not the batch."""
    return [
        (name, axis)
        for name, tensor in spec.inputs.items()
        for axis, size in enumerate(tensor.shape)
        if isinstance(size, str) and (axis or not spec.batches)
    ]


def _enough(usual: int, *shares: Shares) -> int:
    """How many requests are made by default, so that those which are rarely wanted occur."""
    return max(usual, *(min(each.enough, _MOST_BY_DEFAULT) for each in shares))


def _draw(
    spec: ModelSpec, rows: Sequence[int], lengths: Sequence[int], random: np.random.Generator
) -> Iterator[Payload]:
    """Random requests, all dynamic dimensions of each of the same length."""
    signatures = [
        tuple(_sized(tensor, spec.batches, *sizes) for tensor in spec.signature.inputs)
        for sizes in zip(rows, lengths, strict=True)
    ]
    _require_memory(sum(_bytes(tensor) for inputs in signatures for tensor in inputs), len(rows))
    for inputs in signatures:
        seed = int(random.integers(2**63))
        (drawn,) = random_payloads(ModelSignature(inputs, ()), 1, seed, batched=False)
        yield drawn


def _sized(tensor: TensorSpec, batches: bool, rows: int, length: int) -> TensorSpec:
    sizes = tuple(size if isinstance(size, int) else length for size in tensor.shape)
    return replace(tensor, shape=(rows, *sizes[1:]) if batches else sizes)


def _bytes(tensor: TensorSpec) -> int:
    """Of a tensor without dynamic dimensions, before it is drawn; of text about so many."""
    return math.prod(int(size) for size in tensor.shape) * tensor.dtype.numpy.itemsize


def _choose(
    singles: Sequence[Payload], distinct: int | None, random: np.random.Generator
) -> Sequence[Payload]:
    """As many as are asked for, if there are more, in their order."""
    if distinct is None or distinct >= len(singles):
        return singles
    chosen = random.choice(len(singles), distinct, replace=False)
    return [singles[i] for i in sorted(chosen.tolist())]


def _combine(
    singles: Sequence[Payload], sizes: Sequence[int], random: np.random.Generator
) -> Iterator[Payload]:
    """Requests of so many rows, each of single ones of the same inputs and shapes.

    All singles have their turn before one has a second.
    """
    alike: dict[Any, list[int]] = {}
    forms = [tuple((name, array.shape[1:]) for name, array in p.items()) for p in singles]
    for i, form in enumerate(forms):
        alike.setdefault(form, []).append(i)
    which = _deal(range(len(singles)), random)
    decks: dict[Any, Iterator[int]] = {}
    total = 0
    for count, size in enumerate(sizes, 1):
        form = forms[next(which)]
        if (form, size) not in decks:
            decks[form, size] = _deal(alike[form], random)
        parts = [singles[i] for i in itertools.islice(decks[form, size], size)]
        total += sum(array.nbytes for part in parts for array in part.values())
        _require_memory(total, count)
        yield {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _deal(cards: Sequence[int], random: np.random.Generator) -> Iterator[int]:
    """All of them in random order, and again in another, without end."""
    while True:
        yield from random.permutation(cards).tolist()


def _require_memory(tensor_bytes: int, count: int) -> None:
    if tensor_bytes + count * _OVERHEAD_BYTES > MOST_BYTES:
        raise InputError(
            f"the requests would take more than {MOST_BYTES >> 30} GiB of memory; make fewer "
            "distinct ones, or smaller ones"
        )


def _request(spec: ModelSpec, payload: Payload) -> InferRequest:
    outputs = tuple(Wanted(name) for name in spec.outputs)
    return InferRequest(spec.name, encode(payload, spec), spec.version, outputs)


def _size(tensor: Tensor) -> int:
    return tensor.data.byte_size if isinstance(tensor.data, Region) else len(tensor.data)


def _digest(request: InferRequest) -> bytes:
    """The same for two requests that send the same values."""
    digest = hashlib.blake2b()
    for tensor in request.inputs:
        digest.update(
            f"{tensor.name!r} {tensor.datatype} {tensor.shape}\n".encode("utf-8", "replace")
        )
        if not isinstance(tensor.data, Region):
            digest.update(tensor.data)
    return digest.digest()


def _spread(numbers: Sequence[int]) -> Spread:
    return Spread(min(numbers), median(numbers), max(numbers))


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
