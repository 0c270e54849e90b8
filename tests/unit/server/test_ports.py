"""Ports are chosen free and distinct, and a taken one is refused with the way out."""

import socket

import pytest

from tritonkit.errors import PortInUseError
from tritonkit.server.ports import resolve_ports

HOST = "127.0.0.1"


@pytest.fixture
def taken():
    """A port that something listens on."""
    with socket.create_server((HOST, 0)) as server:
        yield server.getsockname()[1]


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server((HOST, 0)) as server:
        return server.getsockname()[1]


def test_any_free():
    """Zero gives each purpose a free port of its own."""
    wanted = {f"p{i}": 0 for i in range(50)}
    ports = resolve_ports(HOST, wanted)
    assert ports.keys() == wanted.keys()
    assert len(set(ports.values())) == 50
    assert all(1024 <= port <= 65535 for port in ports.values())


def test_asked():
    """A free port that was asked for is what comes back."""
    port = free_port()
    assert resolve_ports(HOST, {"http": port, "grpc": 0})["http"] == port


def test_let_go():
    """The ports can be listened on afterwards, also where nobody allows reuse."""
    for port in resolve_ports(HOST, {"http": 0, "grpc": 0}).values():
        with socket.socket() as server:
            server.bind((HOST, port))
            server.listen()


def test_taken(taken):
    """A taken port is refused with its purpose, the reason and the option that changes it."""
    with pytest.raises(PortInUseError) as caught:
        resolve_ports(HOST, {"http": 0, "grpc": taken})
    assert str(caught.value) == (
        f"grpc port {taken} on 127.0.0.1 cannot be used (Address already in use); "
        "choose another with --grpc-port, or 0 for any free one"
    )


def test_let_go_after_refusal(taken):
    """A refusal holds on to none of the ports that were free."""
    port = free_port()
    with pytest.raises(PortInUseError):
        resolve_ports(HOST, {"http": port, "grpc": taken})
    with socket.socket() as server:
        server.bind((HOST, port))


def test_given_twice():
    """One port for two purposes is refused before a server tries it."""
    port = free_port()
    with pytest.raises(PortInUseError, match=f"port {port} was given twice; grpc needs one"):
        resolve_ports(HOST, {"http": port, "grpc": port})


@pytest.mark.parametrize("host", ["203.0.113.1", "::1", "no such host", "a" * 300, "é" * 70])
def test_not_this_host(host):
    """An address that is not of this machine, or is none, is refused in one line."""
    with pytest.raises(PortInUseError, match=r"^http port 0 on .* cannot be used \(.+\)") as caught:
        resolve_ports(host, {"http": 0})
    assert "\n" not in str(caught.value)
