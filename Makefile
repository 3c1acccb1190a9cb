# make help prints what is here.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
WORKERS ?= 2
.DEFAULT_GOAL := help

help: ## what one can make
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

$(STAMP): requirements.lock pyproject.toml
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "installing requirements.lock into $(VENV) (a few minutes, once)"
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

install: $(STAMP) ## the virtual environment

repro: $(STAMP) ## the whole pipeline, for the cohort of params.yaml or COHORT=name
	@./run repro $(if $(COHORT),--cohort $(COHORT))

ui: $(STAMP) ## MLflow's pages: runs, versions, cards (http://127.0.0.1:5000)
	@./run mlflow ui --host 127.0.0.1 --port $(or $(PORT),5000) --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/mlflow.db}"

test: $(STAMP) ## the quick tests
	@./run pytest -n $(WORKERS) -m "not slow"

test-slow: $(STAMP) ## whole runs, browser, large fuzzing
	@./run pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=15 -m slow tests

lint: $(STAMP) ## ruff, mypy, import-linter
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

bench: $(STAMP) ## every benchmark in full, into benchmarks/results/
	@for name in $$(ls benchmarks/*.py | sed 's|.*/||; s|\.py$$||' | grep -v '^_'); do \
	  ./run python -m benchmarks.$$name --json benchmarks/results/$$name.json || exit 1; done

.PHONY: help install repro ui test test-slow lint bench
