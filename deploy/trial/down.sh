#!/usr/bin/env bash
# Removes what up.sh made, with all data: 'make trial-down'. Argo stays, and so do the images.
set -euo pipefail
cd "$(dirname "$0")/../.."
. deploy/trial/context.sh

# First, while Argo's controller can still end them.
if $KUBECTL get crd workflows.argoproj.io > /dev/null 2>&1; then
    echo "Deleting the workflows, for up to 2 minutes ..."
    $KUBECTL -n ml-models delete workflows,workflowtemplates --all --timeout 120s \
        || echo "Some workflows are still there; the namespace takes them with it ..."
fi
$HELM -n dagster uninstall dagster --ignore-not-found --wait --timeout 120s
echo "Deleting deploy/trial, for up to 5 minutes ..."
$KUBECTL delete -k deploy/trial --ignore-not-found --timeout 300s
