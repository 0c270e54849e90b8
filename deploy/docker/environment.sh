#!/bin/sh
# environment.sh NAME: make /opt/python with what requirements/NAME.txt locks and with the kit, and
# /opt/sbom.cdx.json. There is no pip in it, and none of the kit's own requirements.
set -eu
cd /build
pip="python3 -m pip --disable-pip-version-check --no-cache-dir --quiet"
locked="--require-hashes --requirement requirements/$1.txt"
$pip download --only-binary=:all: --dest wheels $locked
python3 -m venv --without-pip /opt/python
$pip --python /opt/python/bin/python install --no-index --find-links wheels $locked
packages=$(/opt/python/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
cp -r src/tritonkit "$packages"
/opt/python/bin/python -m compileall -q "$packages/tritonkit"
PYTHONPATH=src:tools python3 sbom.py /opt/sbom.cdx.json
