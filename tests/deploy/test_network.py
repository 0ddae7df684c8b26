"""Which connections the network policies allow, evaluated as Kubernetes does."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

import pytest

from tests.support.doubles.dagster_chart_objects import objects
from tests.support.manifests import Object, dagster_values, find, of_kind

NAMESPACES: Mapping[str, Mapping[str, str]] = {
    "an-app": {"lora-assets/vllm-client": "true"},
    **{name: {} for name in ("another-app", "ml-models", "dagster", "ai-platform", "kube-system")},
    "s3": {},
}


@dataclass(frozen=True)
class Peer:
    """A pod, or with `ip` a host outside the cluster."""

    namespace: str = ""
    labels: frozenset[tuple[str, str]] = frozenset()
    ports: frozenset[tuple[str, int]] = frozenset()
    ip: str = ""


def pod(namespace: str, *, ports: Mapping[str, int] | None = None, **labels: str) -> Peer:
    return Peer(namespace, frozenset(labels.items()), frozenset((ports or {}).items()))


def of(kind: str, name: str) -> Peer:
    """Return a pod of one of our workloads."""
    found = find(kind, name)
    job = found["spec"].get("jobTemplate", found)
    template = job["spec"]["template"]
    ports = {
        port["name"]: port["containerPort"]
        for container in template["spec"]["containers"]
        for port in container.get("ports", ())
    }
    return pod(found["metadata"]["namespace"], ports=ports, **template["metadata"]["labels"])


VLLM = of("Deployment", "vllm")
JUDGE = of("Deployment", "judge")
STATUS = of("CronJob", "fleet-status")
ARGO_STEP = pod("ml-models", **{"workflows.argoproj.io/workflow": "train-abc"})
# As dagster-k8s labels them.
STEP = pod("dagster", **{"app.kubernetes.io/name": "dagster", "dagster/op": "adapter"})
CHART = {
    each["name"]: pod("dagster", **each["labels"])
    for each in objects(dagster_values())
    if "labels" in each
}
WEBSERVER = CHART["dagster-webserver"]
DAEMON = CHART["dagster-daemon"]
CODE = CHART["dagster-dagster-user-deployments-lora-assets"]
POSTGRESQL = CHART["dagster-postgresql"]
MLFLOW = of("Deployment", "mlflow")
PROMETHEUS = pod("ai-platform", **{"app.kubernetes.io/name": "prometheus"})
DNS = pod("kube-system", **{"k8s-app": "kube-dns"})
CLIENT = pod("an-app", app="chat")
STRANGER = pod("another-app", app="chat")
IN_ML_MODELS = pod("ml-models", app="notebook")
INTERNET = Peer(ip="203.0.113.7")
EXISTING_POSTGRESQL = OWN_S3 = Peer(ip="10.0.3.4")
S3_IN_THE_CLUSTER = pod("s3", app="minio")

ALLOWED = {
    "steps of Dagster to vLLM": (STEP, VLLM, 8000),
    "sensors to vLLM": (CODE, VLLM, 8000),
    "steps to the judge": (STEP, JUDGE, 8000),
    "steps to MLflow": (STEP, MLFLOW, 5000),
    "steps to S3": (STEP, INTERNET, 443),
    "steps to PostgreSQL": (STEP, POSTGRESQL, 5432),
    "steps to an existing PostgreSQL": (STEP, EXISTING_POSTGRESQL, 5432),
    "steps to an own S3": (STEP, OWN_S3, 9000),
    "sensors to an S3 in the cluster": (CODE, S3_IN_THE_CLUSTER, 9000),
    "Argo's steps to an own S3": (ARGO_STEP, OWN_S3, 9000),
    "Argo's steps to an S3 in the cluster": (ARGO_STEP, S3_IN_THE_CLUSTER, 9000),
    "the daemon to the code location": (DAEMON, CODE, 3030),
    "the daemon to the Kubernetes API": (DAEMON, INTERNET, 443),
    "names in dagster": (STEP, DNS, 53),
    "Argo's steps to Dagster": (ARGO_STEP, WEBSERVER, 80),
    "Argo's steps to MLflow": (ARGO_STEP, MLFLOW, 5000),
    "Argo's steps to vLLM": (ARGO_STEP, VLLM, 8000),
    "Argo's steps to the judge": (ARGO_STEP, JUDGE, 8000),
    "Argo's steps to Prometheus": (ARGO_STEP, PROMETHEUS, 9090),
    "Argo's steps to the Kubernetes API": (ARGO_STEP, INTERNET, 6443),
    "names in ml-models": (VLLM, DNS, 53),
    "restore to MLflow": (VLLM, MLFLOW, 5000),
    "vLLM to the model hub": (VLLM, INTERNET, 443),
    "the judge to the model hub": (JUDGE, INTERNET, 443),
    "Prometheus to vLLM": (PROMETHEUS, VLLM, 8000),
    "clients to vLLM": (CLIENT, VLLM, 8000),
    "the check to vLLM": (STATUS, VLLM, 8000),
    "the check to MLflow": (STATUS, MLFLOW, 5000),
    "the check to the Kubernetes API": (STATUS, INTERNET, 443),
}
REFUSED = {
    "strangers to vLLM": (STRANGER, VLLM, 8000),
    "strangers to the judge": (STRANGER, JUDGE, 8000),
    "strangers to Dagster": (STRANGER, WEBSERVER, 80),
    "clients to the judge": (CLIENT, JUDGE, 8000),
    "clients to MLflow": (CLIENT, MLFLOW, 5000),
    "strangers to MLflow": (STRANGER, MLFLOW, 5000),
    "MLflow to other services": (MLFLOW, INTERNET, 443),
    "a neighbour to vLLM": (IN_ML_MODELS, VLLM, 8000),
    "a neighbour to Dagster": (IN_ML_MODELS, WEBSERVER, 80),
    "clients to another port": (CLIENT, VLLM, 9000),
    "vLLM to Dagster": (VLLM, WEBSERVER, 80),
    "vLLM to PostgreSQL": (VLLM, POSTGRESQL, 5432),
    "the judge to an own S3": (JUDGE, OWN_S3, 9000),
    "Argo's steps to an S3 on the internet": (ARGO_STEP, INTERNET, 9000),
    "steps to a PostgreSQL elsewhere": (STEP, INTERNET, 5432),
    "vLLM to the judge": (VLLM, JUDGE, 8000),
    "vLLM to other services": (VLLM, INTERNET, 22),
    "the judge to MLflow": (JUDGE, MLFLOW, 5000),
    "Argo's steps to the code location": (ARGO_STEP, CODE, 3030),
    "steps to other services": (STEP, INTERNET, 22),
}


@pytest.mark.parametrize("connection", ALLOWED.values(), ids=ALLOWED)
def test_a_needed_connection_is_allowed(connection: tuple[Peer, Peer, int]) -> None:
    assert allowed(*connection)


@pytest.mark.parametrize("connection", REFUSED.values(), ids=REFUSED)
def test_every_other_connection_is_refused(connection: tuple[Peer, Peer, int]) -> None:
    assert not allowed(*connection)


def allowed(source: Peer, target: Peer, port: int) -> bool:
    """Return whether both ends allow it; one that no policy selects allows everything."""
    return _end(source, target, "Egress", target, port) and _end(
        target, source, "Ingress", target, port
    )


def _end(here: Peer, there: Peer, direction: str, target: Peer, port: int) -> bool:
    policies = [
        policy.content["spec"]
        for policy in of_kind("NetworkPolicy")
        if policy.namespace == here.namespace
        and direction in policy.content["spec"]["policyTypes"]
        and _matches(policy.content["spec"]["podSelector"], dict(here.labels))
    ]
    return not policies or any(
        any(_is(there, peer, here.namespace) for peer in rule["from" if inward else "to"])
        and any(each == port for each in _ports(rule, target, port))
        for policy in policies
        for inward in [direction == "Ingress"]
        for rule in policy.get(direction.lower(), ())
    )


def _ports(rule: Object, target: Peer, port: int) -> Iterator[int]:
    if "ports" not in rule:
        yield port
    for each in rule.get("ports", ()):
        yield dict(target.ports)[each["port"]] if isinstance(each["port"], str) else each["port"]


def _is(there: Peer, peer: Object, own_namespace: str) -> bool:
    if "ipBlock" in peer:
        return bool(there.ip) and ip_address(there.ip) in ip_network(peer["ipBlock"]["cidr"])
    if there.ip:
        return False
    if "namespaceSelector" in peer:
        name = {"kubernetes.io/metadata.name": there.namespace}
        if not _matches(peer["namespaceSelector"], {**NAMESPACES[there.namespace], **name}):
            return False
    elif there.namespace != own_namespace:
        return False
    return _matches(peer.get("podSelector", {}), dict(there.labels))


def _matches(selector: Object, labels: Mapping[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    for expression in selector.get("matchExpressions", ()):
        assert expression["operator"] in ("Exists", "In")
        if expression["key"] not in labels:
            return False
        if expression["operator"] == "In" and labels[expression["key"]] not in expression["values"]:
            return False
    return True
