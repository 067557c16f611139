# On a fresh machine with only python3: `make demo` and `make test`. Each creates .venv when needed.
PYTHON  ?= python3
VENV    ?= .venv
WORKERS ?= 2
ARGS    ?=
BIN     := $(VENV)/bin
LINTED  := hesskit tests $(wildcard benchmarks notebooks)

export MPLBACKEND ?= Agg
# Small eigen-decompositions are ten times faster on one thread, and xdist fills the cores.
export OPENBLAS_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test lint format bench notebooks docs clean
.NOTPARALLEL:
.DELETE_ON_ERROR:

help: ## Show this list
	@echo "make TARGET   (PYTHON=$(PYTHON), ARGS=\"...\" reaches pytest, the demo and the benchmarks)"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1|\2/p' Makefile | awk -F'|' '{printf "%-11s %s\n", $$1, $$2}'

demo: $(VENV)/.has-demo ## Five problems and four fits by the general methods; pictures go to demo_output/
	$(BIN)/python benchmarks/demo.py $(ARGS)

test: $(VENV)/.has-test ## Run the tests and the examples in docstrings and README (ARGS='-m slow': the slow ones)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" $(ARGS)

lint: $(VENV)/.has-dev ## Check format, style, types and spelling
	@failed=; check() { echo "$$*"; $(BIN)/"$$@" || failed="$$failed $$1"; }; \
	check ruff format --check $(LINTED); \
	check ruff check $(LINTED); \
	check pyright --pythonpath $(BIN)/python; \
	check typos; \
	[ -z "$$failed" ] || { echo "lint failed:$$failed"; exit 1; }

format: $(VENV)/.has-dev ## Format the code and mend what ruff can
	$(BIN)/ruff check --fix-only --quiet $(LINTED)
	$(BIN)/ruff format $(LINTED)

bench: $(VENV)/.has-bench ## Run the benchmarks; numbers go to benchmarks/results/
	$(BIN)/python -m benchmarks.run $(ARGS)

notebooks: $(VENV)/.has-dev ## Execute every notebook (ARGS=--keep: keep their outputs)
	$(BIN)/python notebooks/run.py --workers $(WORKERS) $(ARGS)

docs: $(VENV)/.has-docs ## Build the API pages from the docstrings into site/
	$(BIN)/pdoc hesskit --docformat google --math --output-directory site
	@echo "open site/index.html"

clean: ## Remove what the other targets made, .venv included
	rm -rf $(VENV) .venv-newest site demo_output build dist .cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# .has-EXTRA: the venv holds hesskit[EXTRA] as this pyproject.toml asks for it.
$(VENV)/.has-%: pyproject.toml $(VENV)/.made
	@echo "installing hesskit[$*] into $(VENV) (the first time takes a minute or two)"
	@$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  is=$$($(PYTHON) --version 2>/dev/null) || is="missing or broken"; \
	  echo "hesskit needs Python 3.11 or newer, and $(PYTHON) is $$is: name another, as in 'make test PYTHON=python3.12'." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "$(PYTHON) cannot make a virtual environment: install its venv module (on Debian: apt-get install python3-venv)." >&2; exit 1; }
	@touch $@
