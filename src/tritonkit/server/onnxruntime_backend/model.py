"""The model that Triton's Python backend loads when this file is a backend called `onnxruntime`.

One batch of requests is one `np.concatenate` an input, one `session.run`, and views of the rows
out. Work done once a request is kept to what the Python backend's own objects cost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from tritonkit.repository.backend_rules import boolean, check_model, check_supported, model_dims
from tritonkit.server.onnxruntime_backend.session import (
    model_file,
    open_session,
    run_options,
    session_labels,
)
from tritonkit.server.onnxruntime_backend.tensors import to_array, to_tensor

METRIC = "tritonkit_onnxruntime_session_info"


class TritonPythonModel:
    """One instance of one model: a session of its own, in a process of its own."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Open and check the model. Any error of the kit's tree refuses the load, in its words."""
        config = json.loads(args["model_config"])
        check_supported(config)
        folder = Path(args["model_repository"]) / args["model_version"]
        session = open_session(
            model_file(folder, config),
            config,
            kind=f"KIND_{args['model_instance_kind']}",
            device_id=int(args["model_instance_device_id"]),
        )
        inputs, outputs = session.get_inputs(), session.get_outputs()
        check_model(config, inputs, outputs, session.get_overridable_initializers())

        self._session = session
        self._run_options = run_options(config)
        self._batches = config["max_batch_size"] > 0
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]
        # Triton has no scalars: a config gives them dims [1].
        self._scalars_in = [node.name for node in inputs if not node.shape]
        scalars_out = {node.name for node in outputs if not node.shape}
        self._scalars_out = {
            t["name"]: model_dims(t) for t in config["output"] if t["name"] in scalars_out
        }
        self._publish(args)
        if boolean(config, "share_session_between_instances"):
            pb_utils.Logger.log_warn(
                f"{args['model_instance_name']}: share_session_between_instances has no effect "
                "in the embedded onnxruntime backend; each instance has a session of its own"
            )

    def _publish(self, args: Mapping[str, str]) -> None:
        """Tell at the metrics endpoint what this instance really runs, where there is one."""
        labels = session_labels(self._session)
        instance = args["model_instance_name"]
        pb_utils.Logger.log_info(f"{instance}: session {labels}")
        identity = {"model": args["model_name"], "version": args["model_version"]}
        try:
            self._family = pb_utils.MetricFamily(
                name=METRIC,
                description="The ONNX Runtime session of each model instance, always 1",
                kind=pb_utils.MetricFamily.GAUGE,
            )
            self._metric = self._family.Metric(labels={**identity, "instance": instance, **labels})
            self._metric.set(1)
        except pb_utils.TritonModelException as error:
            pb_utils.Logger.log_verbose(f"{instance}: no {METRIC} metric: {error}")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Serve one batch. With max_batch_size 0 each request runs alone, as it is."""
        if self._batches:
            return self._serve(requests)
        return [response for request in requests for response in self._serve((request,))]

    def _serve(self, requests: Sequence[Any]) -> list[Any]:
        """One run for all `requests`, a response for each: its own rows of what it asked for."""
        response = pb_utils.InferenceResponse
        columns: dict[str, list[np.ndarray]] = {name: [] for name in self._inputs}
        try:
            for request in requests:
                for given in request.inputs():
                    columns[given.name()].append(to_array(given))
            wanted = [request.requested_output_names() for request in requests]
            names = [name for name in self._outputs if any(name in asked for asked in wanted)]
            results = self._run(columns, names)
        except Exception as error:  # whatever went wrong, the model stays up
            return [response(error=pb_utils.TritonError(str(error))) for _ in requests]
        return [
            response([to_tensor(name, y[rows]) for name, y in results if name in asked])
            for rows, asked in zip(self._rows(columns), wanted, strict=True)
        ]

    def _rows(self, columns: Mapping[str, list[np.ndarray]]) -> list[slice]:
        """Where each request's rows lie in the outputs; the whole of them if it ran alone."""
        if not self._batches:
            return [slice(None)]
        stops = list(accumulate(map(len, columns[self._inputs[0]]), initial=0))
        return list(map(slice, stops, stops[1:]))

    def _run(
        self, columns: Mapping[str, list[np.ndarray]], names: list[str]
    ) -> list[tuple[str, np.ndarray]]:
        """Run the requests' arrays, `[rows, ...]` each, as one; the named outputs, all rows.

        ValueError where requests or outputs do not fit together; ORT's own errors as they are.
        """
        feed = {name: _joined(name, arrays) for name, arrays in columns.items() if arrays}
        for name in self._scalars_in:
            feed[name] = feed[name].reshape(())
        results = dict(zip(names, self._session.run(names, feed, self._run_options), strict=True))
        for name, dims in self._scalars_out.items():
            if name in results:
                results[name] = results[name].reshape(dims)
        if self._batches:
            rows = len(feed[self._inputs[0]])
            for name, y in results.items():
                if y.shape[:1] != (rows,):
                    raise ValueError(
                        f"output '{name}' has {y.shape[0] if y.ndim else 1} rows for a batch of "
                        f"{rows} rows: the model cannot be batched"
                    )
        return list(results.items())

    def finalize(self) -> None:
        """Let the session go, and take the metric off the endpoint."""
        self._metric = self._family = self._session = None


def _joined(name: str, arrays: list[np.ndarray]) -> np.ndarray:
    """The rows of all arrays, in aligned memory. ValueError if they differ in more than rows."""
    if len(arrays) == 1 and arrays[0].flags.aligned:
        return arrays[0]
    try:
        return np.concatenate(arrays)
    except ValueError as error:
        raise ValueError(
            f"the requests of one batch have different shapes of input '{name}': {error}"
        ) from error
