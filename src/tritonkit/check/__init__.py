"""Is an ONNX model safe to batch? The proof, made by running it."""
