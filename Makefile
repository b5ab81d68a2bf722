# Two commands on a fresh machine that has Python 3.11 or 3.12, pip and make: `make demo` and `make test`.
SHELL := /bin/bash
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python; do \
	command -v $$p >/dev/null && $$p -c '$(SUPPORTED)' && echo $$p && break; done)
UV := $(shell command -v uv || echo .uv/bin/uv)
BIN := .venv/bin
READY := .venv/.ready
SOURCES := flows tasks wave_ops storage

.PHONY: demo test check format mutants handlers inputs fuzz lock clean
.DELETE_ON_ERROR:

demo: $(READY)  ## draw a scene, edit it with the embedded model, leave the result in demo/
	$(BIN)/wave demo --output demo

test: check  ## every check, then every test that is not marked slow
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

check: $(READY)  ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(SOURCES)
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

mutants: $(READY)  ## put faults into a copy of the code, one by one, and check that tests fail (half an hour)
	$(BIN)/python -m tests.mutants.run

handlers: $(READY)  ## run the tests of storage and tasks, and list the exception handlers that none of them reaches
	OMP_NUM_THREADS=1 COVERAGE_FILE=.coverage $(BIN)/python -m coverage run --source=storage,tasks -m pytest -q -n 0 \
		tests/storage tests/tasks
	$(BIN)/python -m tests.handlers.run .coverage

inputs: $(READY)  ## print what an edit keeps of clips in every container and codec that FFmpeg writes
	$(BIN)/python -m tests.inputs.table

fuzz: $(READY)  ## fuzz what this project parses itself, ten minutes for each parser (an hour and a half)
	$(UV) pip install -q --python $(BIN)/python --group fuzz
	$(BIN)/python -m tests.fuzz.run

lock: .uv/bin/uv  ## pin every dependency by name, version and hash, with no index address
	$(UV) pip compile -q --universal --generate-hashes --no-emit-index-url --no-header \
		--group dev pyproject.toml --output-file requirements.lock

$(READY): requirements.lock pyproject.toml | $(UV)
	@test -n "$(PYTHON)" || { echo "wave needs Python 3.11 or 3.12: none found" >&2; exit 1; }
	$(UV) venv -q --allow-existing --python $(PYTHON) .venv
	$(UV) pip install -q --python $(BIN)/python --require-hashes -r requirements.lock
	$(UV) pip install -q --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $@

.uv/bin/uv:
	$(PYTHON) -m pip install -q --disable-pip-version-check --target .uv 'uv>=0.9,<1'

clean:
	rm -rf .venv .uv demo wave-workspace
