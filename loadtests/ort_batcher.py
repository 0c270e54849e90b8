"""Load on the ONNX Runtime baseline with a dynamic batcher of its own.

Start it:  tritonkit serve --arm ort_batcher --model ranker --http-port 8300
Load it:   locust -f loadtests/ort_batcher.py                      (then http://localhost:8089)
           locust -f loadtests/ort_batcher.py --headless -u 64 -t 20s
"""

from tritonkit.load.locustfile import ArmUser


class OrtBatcher(ArmUser):
    host = "http://127.0.0.1:8300"
    dynamic_batching = True
