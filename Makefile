# Two commands need nothing but Python 3.11 or newer: `make study` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PLUGINS := $(sort $(dir $(wildcard plugins/*/*/pyproject.toml)))
STAMP  := $(VENV)/.installed

export OMP_NUM_THREADS = 1

.PHONY: study test test-fast check format install clean

study: $(STAMP)  ## train, merge, evaluate and report the miniature study
	$(BIN)/m2rl run studies/miniature.yaml

test: $(STAMP)  ## the whole test suite
	$(BIN)/pytest -n 2 --dist loadfile

test-fast: $(STAMP)  ## the quick tests only
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow"

check: $(STAMP)  ## style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy m2rl_core $(wildcard plugins/*/*/m2rl_*)

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(STAMP)

# The build backends are installed first, so that one pip call then resolves the core and all plugins together from this tree.
$(STAMP): pyproject.toml constraints.txt $(addsuffix pyproject.toml,$(PLUGINS))
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt hatchling editables setuptools
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-build-isolation \
		--editable '.[dev]' $(addprefix --editable ./,$(PLUGINS))
	touch $@

clean:
	rm -rf $(VENV) runs
