# Everything is set up in this checkout: .venv for the packages, .lora-assets for the state.
PYTHON ?= python3
VENV := .venv
export LORA_ASSETS_HOME ?= $(CURDIR)/.lora-assets
export DAGSTER_HOME := $(LORA_ASSETS_HOME)/dagster
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: demo test ui check bench

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the packages into $(VENV) (some minutes the first time) ..."
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(VENV)/installed
	$(VENV)/bin/lora-assets demo

test: $(VENV)/installed check
	$(VENV)/bin/pytest

check: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

ui: $(VENV)/installed
	mkdir -p $(DAGSTER_HOME)
	cp lora_assets/cli/dagster.yaml $(DAGSTER_HOME)/dagster.yaml
	$(VENV)/bin/lora-assets data list
	@echo "Dagster: http://127.0.0.1:3000   MLflow: http://127.0.0.1:5000   vLLM API: http://127.0.0.1:8000"
	$(VENV)/bin/honcho start

bench: $(VENV)/installed
	$(VENV)/bin/python benchmarks/embedded_server.py
	$(VENV)/bin/python benchmarks/demo.py
