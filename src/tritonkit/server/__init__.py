"""Servers that tritonkit starts and stops: the embedded Triton and the ONNX Runtime baseline."""
