# `make run` simulates the default job, `make test` runs the tests; both install what they need into .venv.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: run test lint clean

run: .venv/.installed
	$(BIN)/archsim run

test: .venv/.installed-test
	$(BIN)/python -m pytest -q -n auto --dist loadfile

lint: .venv/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'archsim needs Python 3.11 or newer; try: make PYTHON=python3.11 run'; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml | .venv/bin/python
	@echo 'Installing archsim into .venv (torch is large; this takes minutes the first time) ...'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/.installed-test: pyproject.toml | .venv/bin/python
	@echo 'Installing archsim and its test tools into .venv (torch is large; this takes minutes the first time) ...'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@ .venv/.installed
