# Read by up.sh and down.sh: the programs, and whether this cluster is one to try things on.
: "${KUBECTL:=kubectl}" "${HELM:=helm}" "${ARGO:=argo}"

fail() {
    echo "error: $1" >&2
    exit 1
}

context=$($KUBECTL config current-context) || fail "kubectl points at no cluster. Make one: kind create cluster"
case $context in
    kind-* | minikube | k3d-* | docker-desktop | orbstack | rancher-desktop | "${TRIAL_CONTEXT:-}") ;;
    *) fail "$context does not look like a cluster on this machine. To use it all the same: TRIAL_CONTEXT=$context" ;;
esac
