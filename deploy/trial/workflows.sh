#!/usr/bin/env bash
# Writes the workflows with the trial's image and small requests: FOLDER/lora-pipeline.yaml,
# and the WorkflowTemplates into FOLDER/templates.
set -euo pipefail
cd "$(dirname "$0")/../.."
make --silent argo-templates "ARGO_TEMPLATES=$1/argo"
for_trial() { sed -e 's|[^ ]*/vllm-deployment-tools:|lora-assets-trial:|' -e 's/cpu: 250m/cpu: 50m/' "$1"; }
mkdir -p "$1/templates"
for template in "$1"/argo/*.yaml; do
    for_trial "$template" > "$1/templates/$(basename "$template")"
done
for_trial argo/lora-pipeline.yaml > "$1/lora-pipeline.yaml"
