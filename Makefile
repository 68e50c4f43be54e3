# Names for what the package does; the work is in `marlin` and in the workflow.
SUITE ?= quick
DATA ?= embedded
MIRROR ?=
CORES ?= $(shell getconf _NPROCESSORS_ONLN)
PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH ?= torch==2.13.0
VENV := .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin
RESULTS := results/$(SUITE)$(if $(filter measured,$(DATA)),-measured)

# A path of another copy would run that copy's code here.
unexport PYTHONPATH

.PHONY: help install test lint reproduce embedded dashboard clean
.DEFAULT_GOAL := help

help:
	@echo "make reproduce   a suite from data to paper (SUITE=$(SUITE) DATA=$(DATA) MIRROR= CORES=$(CORES))"
	@echo "make test        all tests (MARLIN_MIRROR=FOLDER adds those on measured data)"
	@echo "make lint        style, types, workflow"
	@echo "make install     only the environment, in $(VENV)"
	@echo "make embedded    tables of the package and their comparison with measured data (MIRROR=)"
	@echo "make dashboard   browse the runs of SUITE in the terminal, without an account"
	@echo "make clean       remove caches; results and $(VENV) stay"

install: $(READY)

# The exact torch is named here and not in constraints.txt: machines with a GPU want another build.
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "marlin needs Python 3.11 or later: install it, or name it with PYTHON=" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH) -c constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/ty check --python $(VENV)
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

reproduce: $(READY)
	$(BIN)/marlin reproduce --suite $(SUITE) --data $(DATA) --mirror '$(MIRROR)' --cores $(CORES)

embedded: $(READY)
	$(BIN)/python -m marlin.data.embed --mirror '$(MIRROR)'
	$(BIN)/python -m marlin.analysis.embedded --mirror '$(MIRROR)'

dashboard: $(READY)
	$(BIN)/wandb leet $(RESULTS)/wandb

environment.yml: pyproject.toml $(READY)
	$(BIN)/pyproject2conda yaml -f $< -n marlin -p 3.11 --no-header -o $@ -w force

clean:
	rm -rf .cache .pytest_cache .hypothesis .ruff_cache .snakemake
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
