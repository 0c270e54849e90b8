"""Where the embedded Triton cannot run or cannot be had, one line says so and nothing is left."""

import importlib.util
import os
import platform
import subprocess
import sys
import zipfile
from collections import namedtuple
from pathlib import Path

import platformdirs
import pytest

from tritonkit.errors import SetupError
from tritonkit.server import triton_wheel
from tritonkit.server.triton_wheel import cache_dir, fetch_triton, installed_triton

Version = namedtuple("Version", "major minor")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own, not made yet, on a platform that the wheel is for."""
    monkeypatch.setenv("TRITONKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.35"))
    return tmp_path / "cache"


def left(cache: Path) -> list[Path]:
    """What lies in the cache."""
    return list(cache.rglob("*")) if cache.exists() else []


def refused(call, *arguments) -> str:
    """The one line of its SetupError."""
    with pytest.raises(SetupError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_cache_from_environment(cache):
    """TRITONKIT_CACHE says where the cache is."""
    assert cache_dir() == cache


@pytest.mark.parametrize("value", [None, ""])
def test_cache_of_the_user(monkeypatch, value):
    """Without it, or with an empty one, the cache is in the user's cache folder."""
    monkeypatch.delenv("TRITONKIT_CACHE")
    if value is not None:
        monkeypatch.setenv("TRITONKIT_CACHE", value)
    assert cache_dir() == Path(platformdirs.user_cache_dir("tritonkit"))


@pytest.mark.parametrize("call", [fetch_triton, installed_triton])
@pytest.mark.parametrize(
    ("system", "machine"),
    [("Darwin", "arm64"), ("Windows", "AMD64"), ("Linux", "aarch64"), ("Linux", "armv7l")],
)
def test_other_system(monkeypatch, cache, call, system, machine):
    """Another system or processor is named, and Docker is the way out."""
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert refused(call) == (
        f"the embedded Triton runs on Linux x86_64 only, this is {system} {machine}; "
        "use Docker instead: docker compose up"
    )
    assert not cache.exists()


@pytest.mark.parametrize(
    ("libc", "words"),
    [
        (("glibc", "2.34"), "glibc 2.35 or newer, this is glibc 2.34; use Docker"),
        (("glibc", "2.9"), "glibc 2.35 or newer, this is glibc 2.9; use Docker"),
        (("", ""), "glibc 2.35 or newer, this is another libc"),
        (("musl", "1.2.4"), "glibc 2.35 or newer, this is musl 1.2.4"),
    ],
)
def test_other_libc(monkeypatch, cache, libc, words):
    """An older glibc, or another libc, is named, and Docker is the way out."""
    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    assert words in refused(fetch_triton)
    assert not cache.exists()


@pytest.mark.parametrize("libc", [("glibc", "2.35"), ("glibc", "2.100"), ("glibc", "3.0")])
def test_new_enough_libc(monkeypatch, libc):
    """glibc 2.35 and newer will do; versions are compared as numbers."""
    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    triton_wheel.require_platform()


def test_other_python(monkeypatch, cache):
    """A Python that the wheel has no stub for is named with those that it has."""
    monkeypatch.setattr(sys, "version_info", Version(3, 14))
    words = refused(fetch_triton)
    monkeypatch.undo()  # before pytest itself looks
    assert "has Python stubs for 3.11, 3.12, 3.13, this is 3.14" in words
    assert not cache.exists()


def test_not_set_up(cache):
    """Before the set-up, the command that does it is named with the cache that was looked in."""
    assert refused(installed_triton) == (
        f"the embedded Triton is not in {cache}; fetch it once with: tritonkit setup"
    )


def test_wrong_wheel(tmp_path, cache):
    """A wheel with another hash is refused before anything of it is unpacked."""
    wheel = tmp_path / "nvidia_pytriton-0.7.0-py3-none-manylinux_2_35_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pytriton/tritonserver/bin/tritonserver", "evil")
    words = refused(fetch_triton, wheel)
    assert f"{wheel} is not nvidia-pytriton==0.7.0 (sha256 " in words
    assert "expected 21f063ff93bb…" in words
    assert left(cache) == []


@pytest.mark.parametrize("name", ["missing.whl", "."])
def test_no_wheel(tmp_path, cache, name):
    """A wheel that is not there, or is a folder, is named."""
    assert refused(fetch_triton, tmp_path / name) == f"no such wheel: {tmp_path / name}"
    assert left(cache) == []


def test_unpacking_fails(tmp_path, cache, monkeypatch):
    """If unpacking ends half way, nothing is left and the next set-up starts anew."""
    wheel = tmp_path / "w.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pytriton/tritonserver/bin/other", "no server in it")
    digest = triton_wheel.hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setattr(triton_wheel, "WHEEL_SHA256", digest)
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            fetch_triton(wheel)
        assert left(cache) == []


def test_unpack(tmp_path, cache, monkeypatch):
    """The right wheel is unpacked once, its programs executable and what is not Triton's left."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    server = "pytriton/tritonserver"
    stub = f"{server}/python_backend_stubs/{python}/triton_python_backend_stub"
    wheel = tmp_path / "w.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in (f"{server}/bin/tritonserver", stub, "nvidia_pytriton.libs/l.so"):
            archive.writestr(name, "x")
        archive.writestr("pytriton/proxy.py", "not needed")
    digest = triton_wheel.hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setattr(triton_wheel, "WHEEL_SHA256", digest)
    target = fetch_triton(wheel)
    assert target == cache / "triton-2.51.0"
    assert os.access(installed_triton().binary, os.X_OK)
    assert os.access(installed_triton().python_stub, os.X_OK)
    assert (target / "nvidia_pytriton.libs" / "l.so").is_file()
    assert not (target / "pytriton" / "proxy.py").exists()
    assert [p.name for p in cache.iterdir()] == ["triton-2.51.0"]
    assert fetch_triton(tmp_path / "not looked at") == target


def test_no_pip(monkeypatch, cache):
    """In an environment without pip the two commands that do without are named."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    words = refused(fetch_triton)
    assert "this environment has no pip" in words
    assert "pip download --no-deps nvidia-pytriton==0.7.0, then: tritonkit setup --wheel" in words
    assert left(cache) == []


@pytest.mark.skipif(sys.platform != "linux", reason="the command refuses the system first")
@pytest.mark.parametrize(
    "settings",
    [{"PIP_INDEX_URL": "http://127.0.0.1:9/simple"}, {"PIP_NO_INDEX": "1"}],
    ids=["unreachable", "no index"],
)
def test_no_network(cache, settings):
    """Without a package index the command ends in one line with exit code 1, and leaves nothing."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    done = subprocess.run(
        [sys.executable, "-m", "tritonkit.cli", "setup"],
        env=clean | {"PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0"} | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "error: cannot fetch the embedded Triton (nvidia-pytriton==0.7.0): No matching distribution"
    )
    assert line.endswith("then: tritonkit setup --wheel FILE")
    assert left(cache) == []
