"""Load on the ONNX Runtime baseline.

Start it:  tritonkit serve --arm ort_baseline --model ranker --http-port 8200
Load it:   locust -f loadtests/ort_baseline.py                     (then http://localhost:8089)
           locust -f loadtests/ort_baseline.py --headless -u 16 -t 20s
"""

from tritonkit.load.locustfile import ArmUser


class OrtBaseline(ArmUser):
    host = "http://127.0.0.1:8200"
    dynamic_batching = False
