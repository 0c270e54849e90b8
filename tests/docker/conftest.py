"""A real Docker engine, a base image made here, and the kit's images on it. None is pulled."""

from __future__ import annotations

import ast
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest
from onnx.parser import parse_model
from tests.docker.engine import Engine

from tritonkit.repository.package import Settings, package_model

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
VERSION = "1.2.3"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"

# `slow` makes `steps` turns of a loop that multiplies matrices; it answers with their number.
MODELS = {
    "double": "(float[N,4] x) => (float[N,4] y) { y = Add(x, x) }",
    "slow": "(int64[N,1] steps) => (float[N,1] turns)"
    "{ most = ReduceMax <keepdims = 0> (steps) yes = Constant <value_int = 1> ()"
    "  go = Cast <to = 9> (yes)"
    "  size = Constant <value_ints = [300, 300]> () start = ConstantOfShape (size)"
    "  one = Constant <value_float = 0.0> ()"
    "  matrix, count = Loop (most, go, start, one) <body = turn"
    "   (int64 k, bool on, float[300,300] m, float c) =>"
    "   (bool more, float[300,300] n, float d)"
    "   { more = Identity (on) n = MatMul (m, m) up = Constant <value_float = 1.0> ()"
    "     d = Add (c, up) }>"
    "  same = Cast <to = 1> (steps) none = Sub (same, same) turns = Add (none, count) }",
}


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Docker, where this is root on Linux and it is installed."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a Docker engine of its own needs root on Linux")
    programs = ("dockerd", "docker", "docker-compose", "debootstrap", "ip", "setpriv")
    if missing := [name for name in programs if shutil.which(name) is None]:
        pytest.skip(
            f"{', '.join(missing)} not installed: "
            "apt-get install docker.io docker-compose debootstrap iproute2 util-linux"
        )
    with Engine() as running:
        yield running


@pytest.fixture(scope="session")
def base(engine: Engine) -> str:
    """An image of Debian with Python and pip, and this machine's certificates."""
    root = engine.folder / "root"
    try:
        packages = "python3,python3-pip,libpython3.11,ca-certificates"
        words = ["debootstrap", "--variant=minbase", f"--include={packages}", "bookworm", str(root)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr
        for cache in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(root / cache)
        if bundle := pip_setting("cert") or ssl.get_default_verify_paths().cafile:
            shutil.copyfile(bundle, root / CERTIFICATES[1:])
        packed = subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE)
        image = engine.docker("import", "-", stdin=packed.stdout)
        assert packed.wait() == 0
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return image


def pip_setting(name: str) -> str:
    """What pip takes for an option on this machine, or nothing."""
    words = [sys.executable, "-m", "pip", "config", "list"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    found = [line.partition("=") for line in said.splitlines()]
    values = [ast.literal_eval(value) for key, _, value in found if key.endswith(f".{name}")]
    return str(values[0]) if values else ""


@pytest.fixture(scope="session")
def build(engine: Engine) -> Callable[..., str]:
    """`build("triton", base)` returns the image's id; AssertionError with what docker says."""

    def make(target: str, base: str) -> str:
        found = {name: pip_setting(name) for name in ("index-url", "extra-index-url")}
        index = {
            f"PIP_{name.upper().replace('-', '_')}": value
            for name, value in found.items()
            if value and "file:" not in value  # which is not there in a container
        }
        arguments = {"BASE": base, "VERSION": VERSION, "PIP_CERT": CERTIFICATES, **index}
        words = [word for pair in arguments.items() for word in ("--build-arg", "=".join(pair))]
        options = ("--network", "host", "--target", target, "--file", DOCKERFILE)
        tag = f"tritonkit-test-{target}"
        engine.docker("build", "--quiet", "--tag", tag, *options, *words, ROOT)
        return tag

    return make


@pytest.fixture(scope="session")
def triton(build: Callable[..., str], base: str) -> str:
    """The kit's Triton image."""
    return build("triton", base)


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Put one of MODELS into a repository: `package(repository, "double")`."""

    def put(repository: Path, name: str, **settings: object) -> Path:
        model = parse_model(f'<ir_version: 9, opset_import: ["" : 17]> g {MODELS[name]}')
        path = tmp_path_factory.mktemp("onnx") / "model.onnx"
        onnx.save(model, path)
        package_model(path, name, repository, Settings(8, **settings))  # type: ignore[arg-type]
        return repository

    return put


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A port of the loopback address that nothing listens on."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find
