"""From a PyTorch module or an ONNX file to a `model.onnx` that is proved to run in batches."""
