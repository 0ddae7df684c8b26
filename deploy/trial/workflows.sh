#!/usr/bin/env bash
# Writes the workflows with the trial's image and small requests: FOLDER/lora-pipeline.yaml,
# and the WorkflowTemplates into FOLDER/templates.
set -euo pipefail
cd "$(dirname "$0")/../.."
make --silent argo-templates "ARGO_TEMPLATES=$1/templates"
cp argo/lora-pipeline.yaml "$1"
sed -i -e 's|[^ ]*/vllm-deployment-tools:|lora-assets-trial:|' -e 's/cpu: 250m/cpu: 50m/' \
    "$1"/lora-pipeline.yaml "$1"/templates/*.yaml
