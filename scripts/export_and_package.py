"""Export the example models and package them into model_repository/.

Usage: python scripts/export_and_package.py [ranker] [text_embedder] [file_type]
Your own model: tritonkit export path/to/model.py:factory -o exports/mine
                tritonkit package exports/mine
"""

import sys

from tritonkit.cli import run

run(["examples", *sys.argv[1:]])
