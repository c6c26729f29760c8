# Needs only make and Python >= 3.11; every target sets up what it uses.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: demo test check audit bench soak docs seed lock clean

demo: $(VENV)/installed          ## the main job on real traces, then the dashboard
	$(BIN)/tallystick demo $(ARGS)

test: $(VENV)/installed-dev      ## every test, on real stores, a file at a time on each of two cores
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(VENV)/installed-dev     ## style, types, imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

audit: $(VENV)/installed-dev     ## locked requirements against known advisories
	$(BIN)/python -m tests.audit_requirements requirements.txt

bench: $(VENV)/installed-dev     ## speed and memory; what is printed goes to benchmarks/results/latest
	$(BIN)/python -m benchmarks.run $(ARGS)

soak: $(VENV)/installed-dev      ## the kill tests, twenty rounds of each, and the simulator
	TALLYSTICK_KILL_ROUNDS=20 TALLYSTICK_SEEDS=2000 TALLYSTICK_FIRST_SEED=200 $(BIN)/pytest \
		tests/integration/test_kill.py tests/integration/test_ledger_kill.py \
		tests/integration/test_distributed.py tests/integration/test_kafka_log.py \
		tests/integration/test_chaos.py tests/integration/test_vault.py \
		tests/integration/test_calls_kill.py tests/archive/test_kill.py tests/simulation $(ARGS)

docs: $(VENV)/installed-dev      ## what is generated from the code
	$(BIN)/python -m tests.docs.generate

seed: $(VENV)/installed-dev      ## the shipped cost card, from the pinned genai-prices
	$(BIN)/python -m tallystick.catalog.seed

lock: $(VENV)/installed-dev      ## pinned requirements with hashes, for every Python and system
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
		-o requirements.txt pyproject.toml
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
		-o requirements-dev.txt --extra dev pyproject.toml

clean:
	rm -rf $(VENV) .tallystick .bench

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tallystick needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: requirements.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/installed-dev: requirements-dev.txt pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@ $(VENV)/installed
