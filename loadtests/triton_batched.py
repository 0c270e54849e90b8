"""Load on Triton with dynamic batching.

Start it:  tritonkit serve
Load it:   locust -f loadtests/triton_batched.py                   (then http://localhost:8089)
           locust -f loadtests/triton_batched.py --headless -u 64 -t 20s
"""

from tritonkit.load.locustfile import ArmUser


class TritonBatched(ArmUser):
    host = "http://127.0.0.1:8000"
    dynamic_batching = True
