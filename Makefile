# What people and CI do with this repository. Each target says in one line what it is for; `make` lists them.
PYTHON ?=
export PYTHON
BIN := .venv/bin
PYTEST_ARGS ?=
# Tests wait more than they compute. A file stays in one process, since what it sets up is shared; JOBS=0 runs all in one.
JOBS ?= 2
HOSTILE ?=
SOAK ?=
FUZZ_SECONDS ?= 60

.DEFAULT_GOAL := help
.PHONY: help setup demo test hostile soak fuzz check bench format dist lock clean

help: ## list the targets
	@grep -E '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: ## make .venv with everything locked in requirements/dev.txt
	@scripts/bootstrap

demo: setup ## analyse a generated estate through walled plugins; see a refusal and a recovery (under a minute)
	@$(BIN)/python scripts/demo

test: setup ## run every test, installing the Debian packages that some of them need where it may
	@scripts/debian-packages
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(PYTEST_ARGS)

hostile: setup ## let every hostile plugin loose, and print which layer stopped it; HOSTILE="--only 7,39 --without seccomp"
	@$(BIN)/python tests/hostile/run.py $(HOSTILE)

soak: setup ## a million frames, ten thousand starts and stops, and a count of what they left behind; SOAK="--starts 500"
	@$(BIN)/python tests/hostile/soak.py $(SOAK)

fuzz: setup ## fuzz what reads a plugin's bytes, each target for FUZZ_SECONDS; what crashes is left in build/fuzz
	@for target in session weight manifest policy; do \
	  $(BIN)/python tests/hostile/fuzz.py $$target $(FUZZ_SECONDS) || exit 1; \
	done

check: setup ## ruff, pyright strict, the layers, and the documents against the code
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -q tests/docs

bench: setup ## measure calls, starts, recovery and memory against plain processes; QUICK=1 takes fewer samples
	@$(BIN)/python bench/run.py

format: setup ## put every file into ruff's form, and fix what it can fix
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

dist: setup ## build the wheels and source archives of the three packages into dist/
	@scripts/build-dist dist

lock: setup ## bring requirements/*.txt up to date with the *.in files
	@scripts/lock

clean: ## remove what the other targets made, .venv included
	@rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
