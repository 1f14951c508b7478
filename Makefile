# Two commands are all one needs: `make demo` and `make test`. Both set up .venv/ by themselves.
PYTHON_RUN = .venv/bin/python -m
# Processes that run tests; each keeps to one thread.
JOBS ?= 2

.PHONY: help setup demo test lint types tests clean

help:
	@echo 'make demo   a short run on simulated landscapes, from set-up to figures'
	@echo 'make test   lint, type check and all tests (or one: make lint, types, tests)'
	@echo 'make clean  remove .venv/ and caches'

setup:
	@sh tools/setup.sh

demo: setup
	$(PYTHON_RUN) torchgeo_caco.demo

test: lint types tests

lint: setup
	$(PYTHON_RUN) ruff check .
	$(PYTHON_RUN) ruff format --check .

types: setup
	$(PYTHON_RUN) mypy

tests: setup
	OMP_NUM_THREADS=1 $(PYTHON_RUN) pytest -n $(JOBS)

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
