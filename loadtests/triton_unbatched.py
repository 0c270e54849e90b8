"""Load on Triton without a scheduler.

Start it:  tritonkit serve --arm triton_unbatched --http-port 8100 --grpc-port 0 --metrics-port 0
Load it:   locust -f loadtests/triton_unbatched.py                 (then http://localhost:8089)
           locust -f loadtests/triton_unbatched.py --headless -u 16 -t 20s
"""

from tritonkit.load.locustfile import ArmUser


class TritonUnbatched(ArmUser):
    host = "http://127.0.0.1:8100"
    dynamic_batching = False
