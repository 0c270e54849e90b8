"""KServe v2 over HTTP, the client's side. One connection; requests are encoded once, sent often.

Bodies are built and parsed by tritonclient; geventhttpclient, its own HTTP library, carries
them. Sending bytes that are ready costs a load generator a fraction of what tritonclient's
`infer()` does, and gives every server the same bytes.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.http as triton_http
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError

from tritonkit.errors import InputError, RequestError
from tritonkit.signature import data_type_of

HEADER_LENGTH = "Inference-Header-Content-Length"

# How geventhttpclient's parser says that the connection ended in the middle of an answer: llhttp's
# code for the head, its own words for the body.
_ENDED_EARLY = {14, "Incomplete response."}
_REASON_LENGTH = 300


@dataclass(frozen=True)
class EncodedRequest:
    """An inference request as it goes over the wire. rows: its leading dimension."""

    path: str
    body: bytes
    headers: Mapping[str, str]
    rows: int


def encode_infer(
    model: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
) -> EncodedRequest:
    """Encode a request for `outputs`, all tensors binary. inputs: name → array with batch axis."""
    tensors = []
    for name, array in inputs.items():
        tensor = triton_http.InferInput(name, list(array.shape), data_type_of(array).name)
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    wanted = [triton_http.InferRequestedOutput(name, binary_data=True) for name in outputs]
    body, header_length = triton_http.InferenceServerClient.generate_request_body(
        tensors, outputs=wanted
    )
    headers = {} if header_length is None else {HEADER_LENGTH: str(header_length)}
    rows = next(iter(inputs.values())).shape[0]
    return EncodedRequest(f"/v2/models/{model}/infer", bytes(body), headers, rows)


class HttpConnection:
    """One keep-alive connection to host:port. Not to be shared by threads or greenlets.

    Every method raises RequestError if the server refuses, is silent for `timeout_s`, or answers
    something that is no KServe v2.
    """

    def __init__(self, address: str, timeout_s: float = 30.0):
        host, _, port = address.removeprefix("http://").rstrip("/").rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            raise InputError(f"'{address}' is not an address; give host:port")
        self._address = f"{host}:{port}"
        self._http = HTTPClient(
            host, int(port), concurrency=1, connection_timeout=timeout_s, network_timeout=timeout_s
        )

    def send(self, request: EncodedRequest) -> bytes:
        """Send an inference request; returns the raw body of the answer."""
        return self._exchange("POST", request.path, request.body, request.headers)[0]

    def infer(
        self, model: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
    ) -> dict[str, np.ndarray]:
        """Numpy in, numpy out."""
        request = encode_infer(model, inputs, outputs)
        body, length = self._exchange("POST", request.path, request.body, request.headers)
        try:
            result = triton_http.InferenceServerClient.parse_response_body(
                body, header_length=None if length is None else int(length)
            )
            arrays = {name: result.as_numpy(name) for name in outputs}
        except Exception as error:  # whatever tritonclient makes of foreign bytes
            raise RequestError("protocol", f"{self._address}: not a KServe v2 answer") from error
        missing = [name for name, array in arrays.items() if array is None]
        if missing:
            raise RequestError("protocol", f"{self._address}: the answer lacks outputs {missing}")
        return arrays

    def server_metadata(self) -> dict[str, Any]:
        """Name, version and extensions of the server."""
        return self._get_json("/v2")

    def model_metadata(self, model: str) -> dict[str, Any]:
        """Inputs and outputs of a model, as the server declares them."""
        return self._get_json(f"/v2/models/{model}")

    def model_config(self, model: str) -> dict[str, Any]:
        """The config that the server really runs, after its own defaults."""
        return self._get_json(f"/v2/models/{model}/config")

    def model_statistics(self, model: str) -> dict[str, Any]:
        """The statistics extension's counters for the model's newest loaded version."""
        try:
            return dict(self._get_json(f"/v2/models/{model}/stats")["model_stats"][-1])
        except (KeyError, IndexError, TypeError) as error:
            raise RequestError("protocol", f"{self._address}: no statistics of {model}") from error

    def get_text(self, path: str) -> str:
        """The body at `path`, such as the text at /metrics."""
        return self._exchange("GET", path, b"", {})[0].decode("utf-8", errors="replace")

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def _get_json(self, path: str) -> dict[str, Any]:
        body, _ = self._exchange("GET", path, b"", {})
        try:
            answer = json.loads(body)
        except ValueError as error:
            raise RequestError(
                "protocol", f"{self._address}{path}: the answer is no JSON; is this a Triton?"
            ) from error
        if not isinstance(answer, dict):
            raise RequestError("protocol", f"{self._address}{path}: unexpected answer")
        return answer

    def _exchange(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[bytes, str | None]:
        try:
            response = self._http.request(method, path, body, headers)
            content = bytes(response.read())
        except TimeoutError as error:
            raise RequestError("timeout", f"{self._address}: no answer in time") from error
        except ConnectionRefusedError as error:
            raise RequestError("refused", f"{self._address}: nothing listens there") from error
        except socket.gaierror as error:
            raise RequestError("refused", f"{self._address}: no such host ({error})") from error
        except OSError as error:
            raise RequestError("closed", f"{self._address}: connection lost ({error})") from error
        except HTTPParseError as error:
            if isinstance(error, HTTPConnectionClosed) or set(error.args) & _ENDED_EARLY:
                raise RequestError("closed", f"{self._address}: connection lost") from error
            raise RequestError("protocol", f"{self._address}: not HTTP ({error})") from error
        except ValueError as error:  # a header that is no number
            raise RequestError("protocol", f"{self._address}: not HTTP ({error})") from error
        if response.status_code != 200:
            raise RequestError(
                f"http_{response.status_code}",
                f"{self._address}{path}: {_error_text(content) or response.status_code}",
            )
        return content, response.get(HEADER_LENGTH)


def _error_text(content: bytes) -> str:
    """The server's reason in one line: KServe's, or else the beginning of whatever it sent."""
    try:
        text = str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        text = content[:_REASON_LENGTH].decode("utf-8", errors="replace")
    return " ".join(text.split())[:_REASON_LENGTH]
