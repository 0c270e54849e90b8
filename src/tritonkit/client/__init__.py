"""Calling a server that speaks KServe v2: Triton, or the baseline."""
