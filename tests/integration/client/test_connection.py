"""HttpConnection, and the transport above it, against servers that misbehave."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from tritonkit.client.address import parse_address
from tritonkit.client.operations import Operation
from tritonkit.client.transport import InferRequest, Tensor
from tritonkit.client.transports.connection import HttpConnection, NotHttpError
from tritonkit.client.transports.http import HttpTransport
from tritonkit.errors import RequestError

X = Tensor("x", "FP32", (1, 4), np.ones((1, 4), np.float32).tobytes())
REQUEST = InferRequest("m", (X,))
GET = (b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",)


def http(status, body, *headers):
    """An HTTP answer as bytes."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


OK = http("200 OK", b"{}")


def read_request(peer):
    """Read one request, head and body, from a connection; empty if there is none."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := peer.recv(65536)):
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    missing = int(lines.get(b"content-length", 0)) - len(body)
    while missing > 0:
        missing -= len(peer.recv(65536)) or missing
    return data


@pytest.fixture
def listen():
    """`listen(talk, …)`: a server whose n-th connection is handled by the n-th `talk(peer)`.

    Returns its address. A talk's connection is closed when it returns.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        threads = []

        def serve(talks):
            for talk in talks:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                with peer, suppress(OSError):
                    peer.settimeout(20)
                    talk(peer)

        def start(*talks):
            threads.append(threading.Thread(target=serve, args=(talks,)))
            threads[-1].start()
            return parse_address("http://{}:{}".format(*listener.getsockname()))

        yield start
        listener.close()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()


def saying(*answers, then_wait=False):
    """A talk that answers each request with the next of these, then closes or waits."""

    def talk(peer):
        for answer in answers:
            if not read_request(peer):
                return
            peer.sendall(answer)
        if then_wait:
            peer.recv(65536)

    return talk


@contextmanager
def connected(address):
    connection = HttpConnection(address)
    try:
        connection.connect(time.perf_counter() + 5)
        yield connection
    finally:
        connection.close()


def in_s(seconds):
    return time.perf_counter() + seconds


@pytest.fixture
def failure():
    """How an inference over a new transport fails."""

    def fail(address, timeout_s=5.0):
        transport = HttpTransport(address)
        try:
            with pytest.raises(RequestError) as raised:
                answer = transport.send(transport.encode(REQUEST), timeout_s=timeout_s)
                transport.decode(answer)
        finally:
            transport.close()
        text = str(raised.value)
        assert text.isprintable() and len(text) < 500 and str(address) in text
        return raised.value

    return fail


def test_refused(failure, free_port):
    """Where nothing listens the kind is `refused`."""
    assert failure(parse_address(f"http://127.0.0.1:{free_port}")).kind == "refused"


def test_unknown_host(failure):
    """A host that cannot be found is `refused`: nothing was sent."""
    assert failure(parse_address("http://no-such-host.invalid")).kind == "refused"
    assert failure(parse_address(f"http://{'a' * 70}")).kind == "refused"


def test_silence(failure, listen):
    """A server that never answers is given up at the deadline, not before and not long after."""
    address = listen(saying(b"", then_wait=True))
    start = time.perf_counter()
    assert failure(address, 0.2).kind == "timeout"
    assert 0.2 <= time.perf_counter() - start < 1


def test_a_drip(failure, listen):
    """A server that sends a byte at a time is given up at the deadline all the same."""
    ended = threading.Event()

    def drip(peer):
        read_request(peer)
        for byte in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000:
            peer.sendall(bytes([byte]))
            if ended.wait(0.02):
                return

    start = time.perf_counter()
    assert failure(listen(drip), 0.3).kind == "timeout"
    ended.set()
    assert 0.3 <= time.perf_counter() - start < 1


def test_endless_interim_answers(failure, listen):
    """A server that says 100 for ever never gets to the deadline: its head is too long."""

    def flood(peer):
        read_request(peer)
        while True:
            peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)

    assert failure(listen(flood), 10).kind == "protocol"


def test_an_endless_head(failure, listen):
    """A head that does not end is given up after its limit, whatever the deadline."""

    def flood(peer):
        read_request(peer)
        peer.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            peer.sendall(b"X: y\r\n" * 1000)

    assert failure(listen(flood), None).kind == "protocol"


def test_an_endless_body(failure, listen):
    """A body that does not end is given up at the deadline."""

    def flood(peer):
        read_request(peer)
        peer.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            peer.sendall(b"1\r\nx\r\n" * 10)

    assert failure(listen(flood), 0.2).kind == "timeout"


def test_a_server_that_does_not_read(failure, listen):
    """A large request that the server does not take is given up at the deadline."""
    ended = threading.Event()
    address = listen(lambda peer: ended.wait(20))
    transport = HttpTransport(address)
    large = Tensor("x", "UINT8", (1 << 26,), bytes(1 << 26))
    with pytest.raises(RequestError) as raised:
        transport.send(transport.encode(InferRequest("m", (large,))), timeout_s=0.3)
    assert raised.value.kind == "timeout"
    ended.set()
    transport.close()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nConte",
        http("200 OK", b"12345678")[:-4],
        http("200 OK", bytes(1 << 20))[:-4],
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nab",
    ],
)
def test_closed_before_the_end(failure, listen, data):
    """A connection that is closed before the answer is complete is `closed`, wherever that is."""
    assert failure(listen(saying(data))).kind == "closed"


def test_reset(failure, listen):
    """A connection that the server resets is `closed`."""
    # What is left unread makes the close a reset.
    assert failure(listen(lambda peer: peer.recv(10))).kind == "closed"


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP"),
        (b"\x00\xff" * 50, "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", "not HTTP"),
        (b"\0\0\x18\4\0\0\0\0\0\0\4\0@\0\0", "grpc://"),
        (b"\x15\x03\x01\0\2\2\x46", "https://"),
    ],
)
def test_no_http(failure, listen, data, hint):
    """A server that speaks another protocol is `protocol`; the message knows gRPC and TLS."""
    error = failure(listen(saying(data, then_wait=True)))
    assert error.kind == "protocol" and hint in str(error)


@pytest.mark.parametrize("body", [b"hello", b"{}", b"[]", b"", b'{"outputs": 7}', b"\xff\xfe"])
def test_no_inference_answer(failure, listen, body):
    """A good HTTP answer that is no answer to an inference is `protocol`."""
    assert failure(listen(saying(http("200 OK", body), then_wait=True))).kind == "protocol"


@pytest.mark.parametrize(
    ("status", "kind"),
    [("400 Bad Request", "invalid"), ("404 Not Found", "not_found"), ("503 X", "unavailable")],
)
def test_status(failure, listen, status, kind):
    """A status has its kind, with the server's words."""
    error = failure(listen(saying(http(status, b'{"error": "not today"}'), then_wait=True)))
    assert error.kind == kind and "not today" in str(error)


def test_refused_while_it_is_sent(failure, listen):
    """A server that refuses a large request before it has read it is heard."""

    def refuse(peer):
        peer.recv(1000)
        peer.sendall(http("413 Too Large", b'{"error": "too large"}', "Connection: close"))
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(1 << 20):
            pass

    transport = HttpTransport(listen(refuse))
    large = Tensor("x", "UINT8", (1 << 24,), bytes(1 << 24))
    with pytest.raises(RequestError) as raised:
        transport.send(transport.encode(InferRequest("m", (large,))), timeout_s=10)
    assert raised.value.kind == "too_large"
    transport.close()


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (http("200 OK", b"abc"), b"abc"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
            b"abc",
        ),
        (b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\n" + http("200 OK", b"abc"), b"abc"),
        (b"HTTP/1.1 200 OK\r\n\r\nabc", b"abc"),
        (b"HTTP/1.0 200 OK\r\n\r\nabc", b"abc"),
        (http("200 OK", b""), b""),
        (http("200 OK", bytes(300_000)), bytes(300_000)),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
def test_answers(listen, data, body):
    """Every way in which HTTP frames an answer is understood."""
    with connected(listen(saying(data))) as connection:
        answer = connection.exchange(GET, in_s(5))
        assert answer.body == body
        assert "a" not in answer.headers  # an interim answer's headers are not the answer's


def test_headers_that_come_in_pieces(listen):
    """A head that arrives byte by byte is read like any other, names in lower case."""

    def slowly(peer):
        read_request(peer)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in http("200 OK", b"abc", "X-Long: some value", "Empty:"):
            peer.sendall(bytes([byte]))

    with connected(listen(slowly)) as connection:
        answer = connection.exchange(GET, in_s(5))
    assert answer.headers == {"content-length": "3", "x-long": "some value", "empty": ""}


@pytest.mark.parametrize(
    ("data", "reusable"),
    [
        (http("200 OK", b"abc"), True),
        (http("200 OK", bytes(300_000)), True),
        (http("200 OK", b"abc", "Connection: close"), False),
        (http("200 OK", bytes(300_000), "Connection: close"), False),
        (b"HTTP/1.1 200 OK\r\n\r\nabc", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", False),
        (OK + b"junk", False),
        (OK + OK, False),
    ],
)
def test_reusable(listen, data, reusable):
    """A connection is used again after a complete answer, if the server keeps it and is silent."""
    with connected(listen(saying(data))) as connection:
        answer = connection.exchange(GET, in_s(5))
        assert connection.reusable is reusable and answer.status == 200


def test_an_idle_connection(listen, wait_for):
    """A connection is idle as long as the server neither closes it nor says anything."""
    go = threading.Event()

    def talk(peer):
        saying(OK)(peer)
        go.wait(20)

    with connected(listen(talk)) as connection:
        connection.exchange(GET, in_s(5))
        assert connection.is_idle()
        go.set()
        wait_for(lambda: not connection.is_idle())


def test_abort(listen):
    """What another thread aborts ends at once with an OSError."""
    heard = threading.Event()

    def talk(peer):
        read_request(peer)
        heard.set()
        peer.recv(1)

    with connected(listen(talk)) as connection:
        thread = threading.Thread(target=lambda: (heard.wait(20), connection.abort()))
        thread.start()
        with pytest.raises(OSError):
            connection.exchange(GET, None)
        thread.join()


def test_a_silent_listener_at_its_limit():
    """The deadline holds while the connection is still being made."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = parse_address("http://{}:{}".format(*full.getsockname()))
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        connection = HttpConnection(address)
        start = time.perf_counter()
        with pytest.raises(TimeoutError):
            connection.connect(in_s(0.2))
        assert time.perf_counter() - start < 1
        assert not connection.is_open
        for one in waiting:
            one.close()


def test_not_http_is_no_os_error(listen):
    """Garbage is told from a failing network."""
    with connected(listen(saying(b"garbage\r\n"))) as connection, pytest.raises(NotHttpError):
        connection.exchange(GET, in_s(5))


def test_a_closed_idle_connection_is_replaced(listen, wait_for):
    """A server that closes idle connections is not noticed by who sends the next request."""
    address = listen(saying(OK), saying(OK, OK))
    transport = HttpTransport(address)
    assert [transport.get_text("/", 5) for _ in range(3)] == ["{}"] * 3
    transport.close()


def test_a_connection_closed_under_the_request_is_replaced(listen):
    """A server that closes an idle connection just as the next request comes is not noticed."""

    def hang_up(peer):
        saying(OK)(peer)
        read_request(peer)

    transport = HttpTransport(listen(hang_up, saying(OK)))
    assert [transport.get_text("/", 5) for _ in range(2)] == ["{}"] * 2
    transport.close()


@pytest.mark.parametrize(
    ("first", "request_", "later_s"),
    [
        ((OK,), InferRequest("m", (X,), parameters={"sequence_id": 1}), 0),
        ((OK,), REQUEST, 0.4),
        ((OK, OK[:10]), REQUEST, 0),
        ((), REQUEST, 0),
    ],
    ids=["a sequence's", "died later", "had begun to answer", "a new connection"],
)
def test_what_may_have_run_is_not_sent_again(listen, first, request_, later_s):
    """No request is sent twice that the server may have taken, or that must not run twice."""
    second = []

    def talk(peer):
        saying(*first)(peer)
        if len(first) < 2:
            read_request(peer)
        time.sleep(later_s)

    transport = HttpTransport(listen(talk, lambda peer: second.append(peer.recv(65536))))
    if first:
        transport.call(Operation.LIVE, {}, timeout_s=5)
    with pytest.raises(RequestError) as raised:
        transport.send(transport.encode(request_), timeout_s=5)
    assert raised.value.kind == "closed"
    transport.close()
    with socket.create_connection((transport._address.host, transport._address.port)) as probe:
        probe.sendall(b"probe")
        probe.shutdown(socket.SHUT_WR)
        probe.recv(1)
    assert second == [b"probe"]
