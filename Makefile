# Two commands set everything up:
#   make demo    the main job on scikit-learn's digits: train, export int8, bench, compare, report
#   make test    format check, lint, strict types, import contracts and all tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEVICE_VENV := .venv-device
JOBS ?= 2
SOURCES := toolkit export kernels tests benchmarks

.PHONY: env demo test format check types contracts tests device-tests clean

env: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "the host side needs Python 3.11 or newer; run make PYTHON=python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[host,dev]'
	$(BIN)/pip install --quiet --no-deps torchattacks==3.5.1
	@touch $@

demo: env
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python benchmarks/demo.py

test: check types contracts tests

format: env
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

check: env
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

types: env
	$(BIN)/mypy

contracts: env
	$(BIN)/lint-imports

tests: env
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) --cov --cov-report=term

# The device side from a wheel, without torch or onnx: make device-tests PYTHON=python3.10
# `make tests` does the same in an environment of its own; here it is kept, and no workstation is needed
device-tests:
	$(PYTHON) -m venv --clear $(DEVICE_VENV)
	$(DEVICE_VENV)/bin/pip install --quiet --constraint constraints-device.txt '.[ort,serve,remote]' pytest
	cd tests/device && ../../$(DEVICE_VENV)/bin/python -m pytest -c pytest.ini .

clean:
	rm -rf $(VENV) $(DEVICE_VENV) demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage
