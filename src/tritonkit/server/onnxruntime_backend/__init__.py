"""Triton's ONNX Runtime backend in Python: the same config.pbtxt, without NVIDIA's container.

`model.py` is what Triton loads (its server copies that one file into a backend folder called
`onnxruntime`); what it imports is plain Python that the other arms share, so that all of them run
the same session:

    providers.py   the execution providers that a config asks for
    session.py     the session options, the model file, and the session itself
    tensors.py     numpy arrays as Triton's tensors (inside Triton only, like model.py)

What a config must not say about the model it describes, `tritonkit lint` knows as well:
`repository/backend_rules.py`.
"""
