"""Serve model_repository/ on the real Triton, without Docker, until Ctrl-C.

Usage: python scripts/serve.py [the options of: tritonkit serve]
"""

import sys

from tritonkit.cli import run

run(["serve", *sys.argv[1:]])
