# make demo       train and evaluate the emoji search, then print where the report is
# make test       linters, types and the whole test suite
# make test-cluster  the Slurm profile on a Slurm of the tests' own (Debian, as root; installs it)
# make benchmark  every speed and memory claim, both sides measured here
# make lint       only the linters
.PHONY: demo test test-cluster benchmark lint format clean-venv
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES ?= all

# One marker file per set of extras: installing happens once, and again when pyproject.toml changes.
$(VENV)/.installed-%: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "cusa needs Python 3.11 or newer; name one with make PYTHON=/path/to/python3.11"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

demo: $(VENV)/.installed-demo
	$(BIN)/snakemake --cores $(CORES) --workflow-profile workflow/profiles/default
	@echo "The report: file://$(CURDIR)/results/openmoji/report/index.html"

test: $(VENV)/.installed-demo,test,slurm lint
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-cluster: $(VENV)/.installed-demo,test,slurm
	tests/cluster/run $(BIN)/python

lint: $(VENV)/.installed-demo,test,slurm
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check --compact-diff Snakefile workflow
	$(BIN)/snakemake --lint

format: $(VENV)/.installed-demo,test,slurm
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

benchmark: $(VENV)/.installed-demo,test,slurm
	$(BIN)/python benchmarks/run_all.py
