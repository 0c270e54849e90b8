"""TLS and mutual TLS of the gRPC transports, with a real Triton."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from tritonkit.client.address import parse_address
from tritonkit.client.operations import Operation
from tritonkit.client.transport import InferRequest, Tensor, Tls
from tritonkit.client.transports.grpc import GrpcTransport
from tritonkit.client.transports.grpc_aio import AsyncGrpcTransport
from tritonkit.errors import InputError, RequestError
from tritonkit.server.embedded import EmbeddedTriton

X = np.ones((1, 4), np.float32)


@pytest.fixture(scope="module")
def repository(
    installed: None, package: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return package(tmp_path_factory.mktemp("grpc") / "repository", "double")


def answers(transport: GrpcTransport) -> bool:
    request = InferRequest("double", (Tensor("x", "FP32", X.shape, X.tobytes()),))
    answer = transport.decode(transport.send(transport.encode(request), timeout_s=20))
    return answer.outputs[0].data == (X + X).tobytes()


def failure(address: str, tls: Tls | None = None) -> RequestError:
    transport = GrpcTransport(parse_address(address), tls=tls)
    with closing(transport), pytest.raises(RequestError) as caught:
        transport.call(Operation.SERVER, {}, timeout_s=5)
    return caught.value


def serving_tls(
    repository: Path, certificates: Path, log: Path, *more: str
) -> Iterator[EmbeddedTriton]:
    options = (
        f"--grpc-server-cert={certificates / 'server.pem'}",
        f"--grpc-server-key={certificates / 'server.key'}",
        *(f"--grpc-root-cert={certificates / 'ca.pem'}", *more),
    )
    with EmbeddedTriton(repository, log=log, drain=False, options=options) as server:
        yield server


@pytest.fixture(scope="module")
def tls_port(
    repository: Path, certificates: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    log = tmp_path_factory.mktemp("log") / "log"
    for server in serving_tls(repository, certificates, log, "--grpc-use-ssl=true"):
        yield str(server.endpoints.grpc)


@pytest.fixture(scope="module")
def mutual_port(
    repository: Path, certificates: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    log = tmp_path_factory.mktemp("log") / "log"
    for server in serving_tls(repository, certificates, log, "--grpc-use-ssl-mutual=true"):
        yield str(server.endpoints.grpc)


def test_tls(tls_port: str, certificates: Path) -> None:
    """With the authority's certificate a Triton that speaks TLS answers."""
    tls = Tls(ca=certificates / "ca.pem")
    with closing(GrpcTransport(parse_address(f"grpcs://{tls_port}"), tls=tls)) as transport:
        assert answers(transport)


def test_async_tls(tls_port: str, certificates: Path) -> None:
    """So it does over the asyncio transport."""

    async def run() -> bool:
        tls = Tls(ca=certificates / "ca.pem")
        transport = AsyncGrpcTransport(parse_address(f"grpcs://{tls_port}"), tls=tls)
        live = await transport.call(Operation.LIVE, {}, timeout_s=20)
        await transport.close()
        return live is True

    assert asyncio.run(run())


def test_the_systems_authorities(
    tls_port: str, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an authority those of the system are trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "ca.pem"))
    with closing(GrpcTransport(parse_address(f"grpcs://{tls_port}"))) as transport:
        assert answers(transport)


def test_an_authority_that_did_not_sign(tls_port: str, certificates: Path) -> None:
    """A certificate that nobody trusted has signed is not a matter of trying again."""
    error = failure(f"grpcs://{tls_port}", tls=Tls(ca=certificates / "other.pem"))
    assert error.kind == "protocol" and "not trusted" in str(error)


def test_a_certificate_for_another_name(tls_port: str, certificates: Path) -> None:
    """A certificate that names another host is not a matter of trying again."""
    address = tls_port.replace("127.0.0.1", "localhost")
    error = failure(f"grpcs://{address}", tls=Tls(ca=certificates / "ca.pem"))
    assert error.kind == "protocol" and "another name" in str(error), str(error)


def test_plain_with_a_tls_port(tls_port: str) -> None:
    """grpc:// to a port that wants TLS is closed without a word: the hint names grpcs://."""
    error = failure(f"grpc://{tls_port}")
    assert error.kind == "refused" and "grpcs://" in str(error)


def test_mutual_tls(mutual_port: str, certificates: Path) -> None:
    """A client that identifies itself is served by a Triton that demands it."""
    tls = Tls(*(certificates / name for name in ("ca.pem", "client.pem", "client.key")))
    with closing(GrpcTransport(parse_address(f"grpcs://{mutual_port}"), tls=tls)) as transport:
        assert answers(transport)


def test_no_certificate_for_mutual_tls(mutual_port: str, certificates: Path) -> None:
    """A client that does not is hung up on: the hint names its certificate."""
    error = failure(f"grpcs://{mutual_port}", tls=Tls(ca=certificates / "ca.pem"))
    assert error.kind == "refused" and "tls.cert" in str(error)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"ca": "none.pem"}, "none.pem cannot be read: No such file"),
        ({"ca": "names"}, "tls.ca: .*names has no certificate"),
        ({"cert": "client.pem"}, "tls.cert is given without tls.key"),
        ({"key": "client.key"}, "tls.key is given without tls.cert"),
        ({"cert": "client.pem", "key": "other.key"}, "other.key are not a certificate and its key"),
        ({"cert": "names", "key": "client.key"}, "names and .*are not a certificate and its key"),
    ],
)
def test_files_that_cannot_be_used(certificates: Path, files: dict[str, str], words: str) -> None:
    """A file that cannot be used is named before anything is connected."""
    tls = Tls(**{name: certificates / file for name, file in files.items()})
    with pytest.raises(InputError, match=words):
        GrpcTransport(parse_address("grpcs://localhost:1"), tls=tls)


def test_tls_for_a_plain_address() -> None:
    """TLS is the address's to ask for."""
    with pytest.raises(InputError, match="use grpcs://"):
        GrpcTransport(parse_address("grpc://localhost:1"), tls=Tls())
