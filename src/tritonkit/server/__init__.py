"""Servers: the embedded Triton and the ONNX Runtime baseline, which tritonkit starts and stops, and
those of others.
"""
