"""Measure whether batching pays: one ONNX Runtime session, Triton unbatched, Triton batched.

Usage: python scripts/compare.py [MODEL] [the options of: tritonkit compare]
Without a model: ranker and file_type, into results/.
"""

import sys

from tritonkit.cli import run

if sys.argv[1:]:
    run(["compare", *sys.argv[1:]])
else:
    for name in ("ranker", "file_type"):
        run(["compare", name])
