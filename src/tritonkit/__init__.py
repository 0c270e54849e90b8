"""Take a model to NVIDIA Triton with batching that a measurement has earned."""
