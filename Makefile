# make setup    a .venv from exact pins, and the embedded Triton in the kit's own cache
# make compare  set up, export the examples, then measure: does batching pay?
# make plan     set up, export the examples, then plan the best settings of two of them
# make test          set up, then all tests but the following: ten minutes
# make test-alone    those that measure or time something: ten minutes in which nothing else runs
# make test-docker   those of containers, on a Docker engine of their own: four minutes, root on Linux

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
MODELS := exports/.packaged

.PHONY: setup models compare plan test test-alone test-docker lint clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "error: %s is Python %d.%d; tritonkit needs 3.11 to 3.13: make setup PYTHON=python3.12" % (sys.executable, *v))'
	@echo "setting up $(VENV): about 2 GB, a few minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[examples,dev]'
	$(BIN)/tritonkit setup
	@touch $(READY)

models: $(MODELS)

$(MODELS): | $(READY)
	$(BIN)/python scripts/export_and_package.py
	@touch $(MODELS)

compare: $(READY) $(MODELS)
	$(BIN)/python scripts/compare.py

plan: $(READY) $(MODELS)
	$(BIN)/python scripts/plan.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest -q -n 3 --dist loadfile --no-loadscope-reorder -m 'not alone and not docker'

test-alone: $(READY)
	$(BIN)/pytest -q -m alone

test-docker: $(READY)
	$(BIN)/pytest -q -m docker

clean:
	rm -rf $(VENV) exports results model_repository/*/[0-9]* model_repository/*/payloads.npz
