#!/usr/bin/env bash
# Brings the platform up on the cluster that kubectl points at, and an adapter to live: 'make trial'.
#   CHART       Dagster's chart: dagster/dagster, or a path
#   TRIAL_LOAD  a command that puts an image into the cluster; it is given the archive's path
# Once more does no harm: what is there stays, and the pipeline runs again.
set -euo pipefail
cd "$(dirname "$0")/../.."
. deploy/trial/context.sh
: "${CHART:=dagster/dagster}"
image=lora-assets-trial:$VERSION
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap '$KUBECTL get pods -A >&2' ERR

for program in "$HELM" "$ARGO"; do
    command -v "$program" > /dev/null || fail "$program is missing. Install it, or say where it is: HELM=, ARGO="
done
$KUBECTL get crd workflows.argoproj.io > /dev/null \
    || fail "Argo Workflows is not installed in $context. Install it first (docs/cluster.md)"

load() { # COMMAND...
    echo "Loading $image into $context ..."
    if [ "$ENGINE" = docker ]; then
        docker save --output "$work/image.tar" "$image"
    else
        driver=$([ -d "$STORAGE/overlay" ] && echo overlay || echo vfs)
        buildah --storage-driver "$driver" --root "$STORAGE" --runroot "$STORAGE/run" \
            push --quiet "$image" "docker-archive:$work/image.tar:docker.io/library/$image"
    fi
    "$@" "$work/image.tar"
    rm "$work/image.tar"
}
case ${TRIAL_LOAD:+own}:$context in
    own:*) read -ra command <<< "$TRIAL_LOAD" && load "${command[@]}" ;;
    :kind-*) load kind load image-archive --name "${context#kind-}" ;;
    :minikube) load minikube image load ;;
    :k3d-*) load k3d image import --cluster "${context#k3d-}" ;;
    :docker-desktop | :orbstack | :rancher-desktop) ;; # They have the images of this machine's Docker.
    *) fail "How $context gets an image is not known. Name a command that takes an archive: TRIAL_LOAD=" ;;
esac

ready() { # NAMESPACE DEPLOYMENT...
    for name in "${@:2}"; do
        echo "Waiting up to 10 minutes for $name in $1 ..."
        $KUBECTL -n "$1" rollout status "deploy/$name" --timeout 600s
    done
}
$KUBECTL apply -k deploy/trial
ready s3 s3
ready dagster postgresql
ready ai-platform mlflow prometheus
release=
if [ "$CHART" = dagster/dagster ]; then
    $HELM repo add --force-update dagster https://dagster-io.github.io/helm
    release="--version 1.13.27"
fi
# The chart's schema refers to one on GitHub, which not every machine reaches.
$HELM upgrade --install dagster "$CHART" $release --namespace dagster --skip-schema-validation \
    --values deploy/dagster/values.yaml --values deploy/trial/values.yaml
ready dagster dagster-dagster-user-deployments-lora-assets dagster-webserver dagster-daemon
ready ml-models vllm
ready client client

# The workflows as they are, with the trial's image, and requests that fit beside everything else.
deploy/trial/workflows.sh "$work"
$KUBECTL apply -f "$work/templates"
in_client() { $KUBECTL -n client exec -i deploy/client -- "$@"; }
in_client lora-assets data build --data-version 1 --services logs
workflow=$($ARGO -n ml-models submit "$work/lora-pipeline.yaml" --output name \
    --parameter-file deploy/trial/parameters.yaml)
echo "Waiting up to 60 minutes for the workflow $workflow (argo -n ml-models get $workflow) ..."
deadline=$((SECONDS + 3600))
while true; do
    phase=$($KUBECTL -n ml-models get workflow "$workflow" --output 'jsonpath={.status.phase}')
    case $phase in
        Succeeded) break ;;
        Failed | Error) fail "$workflow ended as $phase. See: argo -n ml-models logs $workflow" ;;
    esac
    ((SECONDS < deadline)) || fail "$workflow is still ${phase:-pending} after 60 minutes"
    sleep 5
done
in_client python - < deploy/trial/ask.py
