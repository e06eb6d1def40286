.DEFAULT_GOAL := help
.PHONY: help demo serve docs test test-slow fuzz test-lowest test-cluster test-browser lint format lock resolve build benchmark clean-venv
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOWEST := .venv-lowest
CORES ?= all
INDEXES := $(foreach run,contrastive cusa,results/openmoji/runs/$(run)/seed23/search/all)
# Older ones, as Python brings them, take twice as long to find that the exact versions fit.
PIP := pip==26.3
TOOLS := $(VENV)/.installed-demo,docs,test,slurm
# Long modules come first (tests/conftest.py). xdist would start those with the most tests first.
PARALLEL := --numprocesses 2 --dist loadfile --no-loadscope-reorder
MARKS ?= not slow and not browser
UV := uv==0.13.9
PLATFORM := --python-version 3.11 --python-platform x86_64-manylinux_2_28

help: ## say what can be made
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# One marker file per set of extras: installing happens once, and again when the ranges or the exact versions change.
$(VENV)/.installed-%: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "cusa needs Python 3.11 or newer; name one with make PYTHON=/path/to/python3.11, after make clean-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	@touch $@

$(LOWEST)/.installed: pyproject.toml constraints-lowest.txt
	@test -x $(LOWEST)/bin/python || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints-lowest.txt --editable '.[demo,test]'
	@touch $@

demo: $(VENV)/.installed-demo ## train and evaluate the emoji search, then print where the report is, and how to search
	$(BIN)/cusa run --cores $(CORES)
	@echo "To search the emoji in the browser, run: make serve"

serve: $(VENV)/.installed-demo ## search the emoji with two models in the browser, after make demo; PORT=8080 is the port
	@for index in $(INDEXES); do test -f $$index/meta.json || { echo "$$index is not there yet; run make demo"; exit 1; }; done
	$(BIN)/cusa serve $(INDEXES) $(if $(PORT),--port $(PORT))

docs: $(TOOLS) ## the documentation as a site, with its links checked, in site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

test: $(TOOLS) lint ## the linters, the types and the tests, but the slow ones
	$(BIN)/python -m pytest $(PARALLEL) -m "$(MARKS)"

test-slow: $(TOOLS) ## the tests that take long; CI runs them too
	$(BIN)/python -m pytest $(PARALLEL) -m slow

fuzz: $(TOOLS) ## run every reader on damaged files; SECONDS=60 says how long, SEED=1 repeats
	$(BIN)/python tests/fuzz.py --seconds $(or $(SECONDS),3600) $(if $(SEED),--seed $(SEED))

# Without the extra `slurm`: its plugin asks for newer versions than cusa itself. What old versions announced is over: their
# warnings are no errors.
test-lowest: $(LOWEST)/.installed ## the test suite on the lowest versions that pyproject.toml allows
	$(LOWEST)/bin/python -m pytest $(PARALLEL) -W default -k "not slurm" -m "not browser"

test-cluster: $(TOOLS) ## the Slurm profile on a Slurm that this installs and starts (Debian, as root)
	tests/cluster/run $(BIN)/python

test-browser: $(TOOLS) ## the search page, the report and the documentation in a chromium that this installs (Debian, as root)
	tests/serve/run $(BIN)/python

lint: $(TOOLS) ## only the linters, the types and the spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/hadolint Dockerfile Dockerfile.jobs
	$(BIN)/mypy
	$(BIN)/snakefmt --check --compact-diff Snakefile workflow
	$(BIN)/snakemake --lint

format: $(TOOLS) ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

# Keeps the exact versions that are still in the ranges. The lowest versions are found anew each time.
lock: ## write the exact versions again; UPGRADE=all, or UPGRADE="torch timm", takes newer ones
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(UV)
	$(BIN)/uv pip compile --quiet --no-header --no-annotate $(PLATFORM) --all-extras \
		$(if $(filter all,$(UPGRADE)),--upgrade,$(addprefix --upgrade-package ,$(UPGRADE))) \
		--output-file constraints.txt pyproject.toml
	$(BIN)/uv pip compile --quiet --no-header --no-annotate $(PLATFORM) --extra demo --extra test \
		--resolution lowest-direct --upgrade --output-file constraints-lowest.txt pyproject.toml

# Nothing is installed or run.
resolve: ## whether the exact versions fit Python 3.12, 3.13 and 3.14, too
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(UV)
	for version in 3.12 3.13 3.14; do \
		$(BIN)/uv pip compile --quiet --no-header --no-annotate --python-version $$version --all-extras \
			--python-platform x86_64-manylinux_2_28 --constraint constraints.txt pyproject.toml > /dev/null \
			&& echo "Python $$version: resolved" || exit 1; \
	done

# The list of components (SBOM, CycloneDX) is that of constraints.txt: everything that all extras bring. cyclonedx-py reads
# no version from another file, so it is given a copy of pyproject.toml that has it.
build: $(TOOLS) ## sdist, wheel and list of components (SBOM) of a release in dist/, checked
	$(BIN)/python -m build --no-isolation
	$(BIN)/twine check --strict dist/*.tar.gz dist/*.whl
	sed "s/^dynamic = .*/version = \"$$($(BIN)/hatchling version)\"/" pyproject.toml > dist/pyproject.toml
	$(BIN)/python -W ignore::UserWarning -m cyclonedx_py requirements --pyproject dist/pyproject.toml --output-reproducible \
		--output-file dist/cusa-sbom.cdx.json constraints.txt
	rm dist/pyproject.toml

benchmark: $(TOOLS) ## every claim about speed and memory, both sides measured here
	$(BIN)/python benchmarks/run_all.py

clean-venv: ## remove the environments that make has made
	rm -rf $(VENV) $(LOWEST)
