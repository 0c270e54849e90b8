"""Plan the batching of a model: profile it, simulate all settings, run the best few live.

Usage: python scripts/plan.py [MODEL] [the options of: tritonkit plan]
Without a model: ranker and file_type, into plans/.
"""

import sys

from tritonkit.cli import run

if sys.argv[1:]:
    run(["plan", *sys.argv[1:]])
else:
    for name in ("ranker", "file_type"):
        run(["plan", name])
