"""What the client's tests share: certificates, and ports where anything may answer."""

from __future__ import annotations

import socket
import subprocess
import threading
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

# The name that each certificate is for.
NAMES = {"server": "IP:127.0.0.1", "localhost": "DNS:localhost", "client": "DNS:client"}


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: ca and other, two authorities; server, localhost and client, signed by ca; and
    junk.pem. Each is a .pem and a .key, made by openssl.
    """
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj")
    for name in ("ca", "other"):
        files = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
        openssl("req", "-x509", *new, f"/CN={name}", "-days", "2", *files)
    for name, known_as in NAMES.items():
        openssl("req", *new, f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        (folder / "names").write_text(f"subjectAltName={known_as}\n")
        signer = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2")
        files = ("-in", f"{name}.csr", "-out", f"{name}.pem", "-extfile", "names")
        openssl("x509", "-req", *signer, *files)
    (folder / "junk.pem").write_text("junk")
    return folder


@pytest.fixture(scope="session")
def listening():
    """`with listening(talk, wrap=None) as where:` is a port that talks as it is told."""
    return _listening


@contextmanager
def _listening(talk, wrap=None):
    """A port each of whose connections is handled by `talk(peer)`."""
    peers, threads = [], []

    def handle(peer):
        with suppress(OSError):
            if wrap is not None:
                peer = wrap(peer)
            with peer:
                talk(peer)

    def serve():
        with suppress(OSError):
            while True:
                peers.append(listener.accept()[0])
                threads.append(threading.Thread(target=handle, args=(peers[-1],)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        accepting = threading.Thread(target=serve)
        accepting.start()
        try:
            yield "{}:{}".format(*listener.getsockname())
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join(20)
            for peer in peers:
                with suppress(OSError):
                    peer.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(20)
                assert not thread.is_alive()
            for peer in peers:
                peer.close()
