"""The server that the benchmarks call: the embedded Triton, with models that hardly compute."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from onnx.parser import parse_model

from tritonkit.repository.package import Settings, package_model
from tritonkit.server.embedded import EmbeddedTriton
from tritonkit.server.interface import Endpoints
from tritonkit.server.triton_wheel import fetch_triton

SMALL = "small"
"""y = x + x of float32 [N, 64]; up to 8 rows a request, with dynamic batching."""

LARGE = "large"
"""y = x + x of float32 [N, 1024], which is 4 kB a row; up to 1024 rows a request, no batching."""

_SHAPES = {
    SMALL: (64, Settings(8)),
    LARGE: (1024, Settings(1024, scheduler=None)),
}


@contextmanager
def serving() -> Iterator[Endpoints]:
    """Serve both models on free ports of the loopback address."""
    fetch_triton()
    with tempfile.TemporaryDirectory(prefix="tritonkit-benchmark-") as folder:
        work = Path(folder)
        for name, (width, settings) in _SHAPES.items():
            graph = f"g (float[N,{width}] x) => (float[N,{width}] y) {{ y = Add(x, x) }}"
            onnx.save(
                parse_model(f'<ir_version: 9, opset_import: ["" : 17]> {graph}'),
                work / f"{name}.onnx",
            )
            package_model(work / f"{name}.onnx", name, work / "repository", settings)
        with EmbeddedTriton(work / "repository", log=work / "triton.log", drain=False) as server:
            yield server.endpoints
