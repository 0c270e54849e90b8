"""HttpConnection against servers that misbehave: every failure has its kind."""

from __future__ import annotations

import socket
import threading
import time

import numpy as np
import pytest

from tritonkit.client.old_http import EncodedRequest, HttpConnection, encode_infer
from tritonkit.errors import InputError, RequestError

X = {"x": np.ones((2, 4), np.float32)}


@pytest.fixture
def answer():
    """Listen, and answer each request on each connection with these bytes; `None` never does.

    Returns the address. After the bytes the connection is closed if `close` says so.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()
    threads = []

    def serve(data, close):
        listener.settimeout(0.05)
        while not done.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            with connection:
                connection.settimeout(0.05)
                while not done.is_set():
                    try:
                        if not connection.recv(65536):
                            break
                    except TimeoutError:
                        continue
                    except ConnectionError:
                        break
                    if data is not None:
                        connection.sendall(data)
                    if close:
                        break

    def start(data, *, close=False):
        threads.append(threading.Thread(target=serve, args=(data, close)))
        threads[-1].start()
        host, port = listener.getsockname()
        return f"{host}:{port}"

    yield start
    done.set()
    for thread in threads:
        thread.join()
    listener.close()


def http(status, body, *headers):
    """An HTTP answer as bytes."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.fixture
def failure():
    """How a request to this address fails."""
    opened = []

    def fail(address, timeout_s=0.3, ask=lambda c: c.infer("m", X, ["y"])):
        opened.append(HttpConnection(address, timeout_s))
        with pytest.raises(RequestError) as raised:
            ask(opened[-1])
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 400
        assert address in str(raised.value)
        return raised.value

    yield fail
    for connection in opened:
        connection.close()


def test_refused(failure, free_port):
    """Where nothing listens the kind is `refused`."""
    assert failure(f"127.0.0.1:{free_port}").kind == "refused"


def test_timeout(failure, answer):
    """A server that never answers is given up after the timeout, and the kind is `timeout`."""
    start = time.monotonic()
    assert failure(answer(None)).kind == "timeout"
    assert 0.25 < time.monotonic() - start < 2


def test_timeout_in_the_middle_of_the_answer(failure, answer):
    """A server that stops in the middle of its answer is a `timeout` too."""
    assert failure(answer(http("200 OK", b"12345678")[:-4])).kind == "timeout"


def test_closed_before_the_answer(failure, answer):
    """A connection that the server closes with no answer is `closed`."""
    assert failure(answer(b"", close=True)).kind == "closed"


def test_closed_in_the_middle_of_the_head(failure, answer):
    """A connection that is closed in the middle of the answer's head is `closed`."""
    assert failure(answer(b"HTTP/1.1 200 OK\r\nConte", close=True)).kind == "closed"


def test_closed_in_the_middle_of_the_body(failure, answer):
    """A connection that is closed in the middle of the answer's body is `closed`."""
    assert failure(answer(http("200 OK", b"12345678")[:-4], close=True)).kind == "closed"


def test_reset(failure):
    """A connection that the server resets is `closed`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def reset():
            connection, _ = listener.accept()
            connection.recv(10)  # what is left unread makes the close a reset
            connection.close()

        thread = threading.Thread(target=reset)
        thread.start()
        assert failure("{}:{}".format(*listener.getsockname())).kind == "closed"
        thread.join()


@pytest.mark.parametrize("data", [b"SSH-2.0-OpenSSH\r\n\r\n", b"\x00\xff" * 50])
def test_no_http(failure, answer, data):
    """A server that speaks another protocol is `protocol`."""
    assert failure(answer(data)).kind == "protocol"


@pytest.mark.parametrize("body", [b"hello", b"{}", b"[]", b"", b'{"outputs": 7}', b"\xff\xfe"])
def test_no_inference_answer(failure, answer, body):
    """A good HTTP answer that is no answer to an inference is `protocol`."""
    assert failure(answer(http("200 OK", body))).kind == "protocol"


def test_an_output_is_missing(failure, answer):
    """An inference answer without the output that was asked for is `protocol`."""
    body = b'{"outputs": [{"name": "z", "datatype": "FP32", "shape": [1], "data": [1.0]}]}'
    assert failure(answer(http("200 OK", body))).kind == "protocol"


def test_a_wrong_header_length(failure, answer):
    """A header length that is no number is `protocol`."""
    body = b'{"outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [1.0]}]}'
    data = http("200 OK", body, "Inference-Header-Content-Length: many")
    assert failure(answer(data)).kind == "protocol"


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "503 Unavailable"])
def test_status(failure, answer, status):
    """Any other status is a kind of its own, with the server's words."""
    error = failure(answer(http(status, b'{"error": "there is no such thing"}')))
    assert error.kind == f"http_{status[:3]}"
    assert "there is no such thing" in str(error)


@pytest.mark.parametrize("body", [b"", b"<html>\n<b>gone</b>\n</html>" * 40, b'{"error": "a\\nb"}'])
def test_status_without_a_plain_reason(failure, answer, body):
    """A page, nothing, or many lines as the reason still make a message of one short line."""
    assert failure(answer(http("404 Not Found", body))).kind == "http_404"


ASKED = {
    "metadata": lambda c: c.model_metadata("m"),
    "config": lambda c: c.model_config("m"),
    "statistics": lambda c: c.model_statistics("m"),
}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("body", [b"hello", b"[]", b"7"])
def test_no_json_object(failure, answer, asked, body):
    """Metadata, config and statistics that are no JSON object are `protocol`."""
    assert failure(answer(http("200 OK", body)), ask=ASKED[asked]).kind == "protocol"


@pytest.mark.parametrize("body", [b"{}", b'{"model_stats": []}', b'{"model_stats": [7]}'])
def test_no_statistics(failure, answer, body):
    """A JSON object without statistics is `protocol`."""
    assert failure(answer(http("200 OK", body)), ask=ASKED["statistics"]).kind == "protocol"


def test_used_again_after_a_failure():
    """A connection whose request failed connects anew for the next."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        for data in (b"", http("200 OK", b'{"name": "late"}')):
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(data)

    thread = threading.Thread(target=serve)
    thread.start()
    connection = HttpConnection("{}:{}".format(*listener.getsockname()), 2)
    request = EncodedRequest("/v2/models/m/infer", b"{}", {}, 1)
    with pytest.raises(RequestError):
        connection.send(request)
    assert connection.send(request) == b'{"name": "late"}'
    thread.join()
    connection.close()
    listener.close()


@pytest.mark.parametrize(
    "address", ["", "localhost", ":8000", "host:", "host:http", "1.2.3.4:-1", "a:65536", "a:²"]
)
def test_no_address(address):
    """What is no host:port is the user's mistake, and named."""
    with pytest.raises(InputError, match="give host:port"):
        HttpConnection(address)


def test_unknown_host(failure):
    """A host name that cannot be resolved is a failed request, not a crash."""
    assert failure("no-such-host.invalid:8000").kind == "refused"


def test_encoded_request():
    """A request is encoded once: its path, its rows, and a body with the tensor's own bytes."""
    request = encode_infer("m", X, ["y"])
    assert isinstance(request, EncodedRequest)
    assert request.path == "/v2/models/m/infer" and request.rows == 2
    length = int(request.headers["Inference-Header-Content-Length"])
    assert request.body[length:] == X["x"].tobytes()


def test_nothing_is_sent_twice():
    """An inference request that may have reached the server is not sent again by itself."""
    listener = socket.create_server(("127.0.0.1", 0))
    got = []

    def serve():
        listener.settimeout(0.3)
        try:
            while True:
                connection, _ = listener.accept()
                with connection:
                    got.append(connection.recv(65536))
        except TimeoutError:
            listener.close()

    thread = threading.Thread(target=serve)
    thread.start()
    connection = HttpConnection("{}:{}".format(*listener.getsockname()), 2)
    with pytest.raises(RequestError):
        connection.send(EncodedRequest("/v2/models/m/infer", b"{}", {}, 1))
    connection.close()
    thread.join()
    assert len(got) == 1
