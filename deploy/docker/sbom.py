"""What is in an image, as CycloneDX: sbom.py FILE.

The packages of /opt/python, Triton's wheel with the libraries in it where /opt/tritonserver is
there, Python, and the packages of Debian that the base image has.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from cyclonedx.factory.license import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from tritonkit.server.triton_wheel import REQUIREMENT, TRITON_VERSION, WHEEL_SHA256

PYTHON = Path("/opt/python")
TRITON = Path("/opt/tritonserver")

_licenses = LicenseFactory()


def main(target: Path) -> None:
    """Write it."""
    version = os.environ.get("VERSION")
    image = Component(type=ComponentType.CONTAINER, name="tritonkit", version=version)
    bom = Bom(components=_components())
    bom.metadata.component = image
    bom.register_dependency(image, bom.components)
    JsonV1Dot6(bom).output_to_file(str(target), allow_overwrite=True, indent=1)


def _components() -> Iterator[Component]:
    version = platform.python_version()
    yield Component(
        type=ComponentType.PLATFORM,
        name="python",
        version=version,
        purl=PackageURL("generic", None, "python", version),
    )
    (packages,) = PYTHON.glob("lib/python3*/site-packages")
    for distribution in distributions(path=[str(packages)]):
        yield _package(distribution)
    if TRITON.is_dir():
        yield _triton()
    if shutil.which("dpkg-query"):
        yield from _debian()


def _package(distribution: Distribution) -> Component:
    name, version = distribution.name, distribution.version
    expression = distribution.metadata.get("License-Expression")
    return Component(
        name=name,
        version=version,
        purl=PackageURL("pypi", None, name, version),
        licenses=[_licenses.make_from_string(expression)] if expression else [],
    )


def _triton() -> Component:
    """The wheel, and in it the server and the libraries that were built into the wheel."""
    name, _, version = REQUIREMENT.partition("==")
    home = ("github", "triton-inference-server", "server", f"v{TRITON_VERSION}")
    server = Component(name="tritonserver", version=TRITON_VERSION, purl=PackageURL(*home))
    files = [
        Component(
            type=ComponentType.FILE,
            name=path.name,
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=_sha256(path))],
        )
        for path in sorted((TRITON / "lib").iterdir())
    ]
    return Component(
        name=name,
        version=version,
        purl=PackageURL("pypi", None, name, version),
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=WHEEL_SHA256)],
        components=[server, *files],
    )


def _debian() -> Iterator[Component]:
    form = "${db:Status-Abbrev}\t${Package}\t${Version}\t${Architecture}\n"
    words = ["dpkg-query", "--show", f"--showformat={form}"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    system = platform.freedesktop_os_release()
    for line in said.splitlines():
        status, name, version, machine = line.split("\t")
        if status.startswith("ii"):
            where = {"arch": machine, "distro": f"{system['ID']}-{system.get('VERSION_ID', '')}"}
            purl = PackageURL("deb", system["ID"], name, version, qualifiers=where)
            yield Component(name=name, version=version, purl=purl)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
