"""Take a model to NVIDIA Triton with batching that a measurement has earned."""

import os

# ONNX Runtime reports usage to its maker unless told not to, and a server of other people's
# models must not. It reads this when it is imported, also in the processes that the kit starts.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
