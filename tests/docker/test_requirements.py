"""What the images install is locked, and is what the rest of the kit is tested with."""

from __future__ import annotations

import re

import pytest
from tests.docker.conftest import ROOT

LOCKS = sorted((ROOT / "deploy" / "docker" / "requirements").glob("*.txt"))


def pins(text):
    """name → version, of lines such as `numpy==2.4.6`, names as pip compares them."""
    found = re.findall(r"^([\w.-]+)==([\w.]+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_hashes(lock):
    """Every package of an image is named with its version and a hash."""
    lines = re.sub(r"\\\n", "", lock.read_text()).splitlines()
    packages = [line for line in lines if line and not line.startswith("#")]
    assert packages
    assert [line for line in packages if not re.match(r"[^ ]+==.* --hash=sha256:", line)] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_versions(lock):
    """The versions are those of constraints.txt."""
    constraints = pins((ROOT / "constraints.txt").read_text())
    locked = pins(lock.read_text())
    shared = locked.keys() & constraints.keys()
    assert shared
    assert {name: locked[name] for name in shared} == {name: constraints[name] for name in shared}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_what_is_asked_for(lock):
    """The lock was made anew after the last change of what is asked for."""
    asked = lock.with_suffix(".in").read_text()
    names = re.findall(r"^([a-z][\w-]*)", asked, re.MULTILINE)
    assert set(names) <= pins(lock.read_text()).keys()
