"""Accounts, volumes, Secrets and selectors of a manifest refer to objects that are made."""

import re

import pytest

from lora_assets.kubernetes.step_pods import EVALUATION_CLAIM, TRAIN, TRAINING_CLAIM
from tests.support.argo_workflows import STAGES
from tests.support.manifests import (
    FOLDERS,
    PODS,
    REPOSITORY,
    WITH_PODS,
    Manifest,
    Object,
    code_location,
    dagster_values,
    find,
    of_kind,
)

GUIDE = (REPOSITORY / "docs" / "cluster.md").read_text()


def selected(selector: Object, namespace: str | None) -> list[Manifest]:
    """Return the workloads whose pods have these labels."""
    return [
        manifest
        for manifest in WITH_PODS
        if manifest.namespace == namespace
        and manifest.pod
        and selector.items() <= manifest.pod["metadata"]["labels"].items()
    ]


@pytest.mark.parametrize(
    "service", [m for m in of_kind("Service") if "selector" in m.content["spec"]], ids=str
)
def test_a_service_selects_one_workload_and_a_port_of_it(service: Manifest) -> None:
    (workload,) = selected(service.content["spec"]["selector"], service.namespace)
    names = {port["name"] for c in workload.containers for port in c.get("ports", ())}
    assert {port["targetPort"] for port in service.content["spec"]["ports"]} <= names


@pytest.mark.parametrize("manifest", WITH_PODS, ids=str)
def test_a_workload_selects_its_own_pods_and_probes_a_port_that_it_has(manifest: Manifest) -> None:
    if manifest.kind == "Deployment":
        labels = manifest.content["spec"]["selector"]["matchLabels"]
        assert selected(labels, manifest.namespace) == [manifest]
    for container in manifest.containers:
        ports = {port["name"] for port in container.get("ports", ())}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert {container[probe]["httpGet"]["port"]} <= ports if probe in container else True


def test_the_budget_is_for_the_replicas() -> None:
    (budget,) = of_kind("PodDisruptionBudget")
    labels = budget.content["spec"]["selector"]["matchLabels"]
    assert [m.name for m in selected(labels, budget.namespace)] == ["vllm"]


@pytest.mark.parametrize("manifest", PODS, ids=str)
def test_volumes_are_mounted_limited_and_their_claims_made(manifest: Manifest) -> None:
    assert manifest.pod is not None
    volumes = {volume["name"]: volume for volume in manifest.pod["spec"]["volumes"]}
    mounts = {mount["name"] for c in manifest.containers for mount in c["volumeMounts"]}
    assert mounts == volumes.keys()
    for volume in volumes.values():
        if "emptyDir" in volume:
            assert volume["emptyDir"]["sizeLimit"]
        else:
            claim = volume["persistentVolumeClaim"]["claimName"]
            assert find("PersistentVolumeClaim", claim, manifest.namespace)


def test_the_claims_of_dagsters_steps_are_made() -> None:
    for claim in (TRAINING_CLAIM, EVALUATION_CLAIM):
        assert find("PersistentVolumeClaim", claim, "dagster")


def test_service_accounts_are_there() -> None:
    made = {(m.namespace, m.name) for m in of_kind("ServiceAccount")}
    values = dagster_values()
    used: set[tuple[str | None, str]] = {("dagster", values["serviceAccount"]["name"])}
    used |= {("dagster", values["dagster-user-deployments"]["serviceAccount"]["name"])}
    used |= {
        (m.namespace, m.pod["spec"]["serviceAccountName"])
        for m in PODS
        if m.pod and "serviceAccountName" in m.pod["spec"]
    }
    used |= {
        (subject["namespace"], subject["name"])
        for binding in of_kind("RoleBinding")
        for subject in binding.content["subjects"]
    }
    assert used == made


def test_a_pod_without_rights_has_no_token() -> None:
    for manifest in WITH_PODS:
        assert manifest.pod is not None
        spec = manifest.pod["spec"]
        assert "serviceAccountName" in spec or spec["automountServiceAccountToken"] is False


def test_a_binding_binds_a_role_of_its_namespace() -> None:
    roles = {(m.namespace, m.name) for m in of_kind("Role")}
    bound = [(m.namespace, m.content["roleRef"]["name"]) for m in of_kind("RoleBinding")]
    assert sorted(bound) == sorted(roles)


S3_CREDENTIALS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3"}


def created() -> dict[tuple[str, str], set[str]]:
    """Return the keys of each Secret that the guide creates, by namespace and name."""
    commands = re.findall(
        r"kubectl -n (\S+) create secret generic (\S+)((?:[\s\\]+--from-literal=\S+)+)", GUIDE
    )
    return {
        (namespace, name): set(re.findall(r"--from-literal=([A-Za-z0-9_]+)=", keys))
        for namespace, name, keys in commands
    }


def test_the_guide_creates_every_secret_that_a_container_reads() -> None:
    containers = [
        *((m.namespace, c) for m in PODS for c in m.containers),
        ("dagster", code_location()),
        ("dagster", {"env": TRAIN["dagster-k8s/config"]["container_config"]["env"]}),
    ]
    asked = {
        (namespace, ref["name"], ref["key"])
        for namespace, container in containers
        for variable in container.get("env", ())
        for source in [variable.get("valueFrom") or variable.get("value_from") or {}]
        if (ref := source.get("secretKeyRef") or source.get("secret_key_ref"))
    }
    assert ("dagster", "hf-token", "token") in asked
    for namespace, name, key in asked:
        assert key in created()[str(namespace), name], (namespace, name)


def test_everything_that_may_read_the_bucket_takes_an_optional_key_for_it() -> None:
    optional = {"secretRef": {"name": "s3-credentials", "optional": True}}
    readers = {
        f"{m} {container.get('name', 'step')}"
        for m in PODS
        for container in m.containers
        if optional in container.get("envFrom", ())
    }
    assert readers == {
        "vllm/deployment.yaml: Deployment vllm restore",
        "mlflow/deployment.yaml: Deployment mlflow mlflow",
        "monitoring/fleet-status.yaml: CronJob fleet-status status",
        "argo/lora-pipeline.yaml: Workflow lora-pipeline-check step",
        *(f"argo/{stage}.yaml: Workflow {stage}-step step" for stage in STAGES),
    }
    keys = {
        v["name"]: v["valueFrom"]["secretKeyRef"]
        for v in code_location()["env"]
        if v["name"] in S3_CREDENTIALS
    }
    assert keys == {
        name: {"name": "s3-credentials", "key": name, "optional": True} for name in S3_CREDENTIALS
    }
    assert created()["ml-models", "s3-credentials"] == {*S3_CREDENTIALS, "AWS_DEFAULT_REGION"}
    assert created()["dagster", "s3-credentials"] == S3_CREDENTIALS


def test_the_guide_applies_every_folder_and_makes_namespaces_before_what_goes_into_them() -> None:
    applied = re.findall(r"kubectl apply -[kf] ([a-z0-9./-]+)", GUIDE)
    made = {"argo/templates/"}  # By `make argo-templates`, in the line before.
    assert all((REPOSITORY / path).exists() for path in set(applied) - made)
    assert "$ make argo-templates\n$ kubectl apply -f argo/templates/" in GUIDE
    apart = {"deploy/judge/base", "deploy/judge/llama-70b"}  # A base; the other judge.
    assert {f"deploy/{folder}" for folder in FOLDERS} - apart <= set(applied)
    for later in ("argo/argo-workflows", "$ kubectl apply -k", "$ kubectl -n ml-models"):
        assert GUIDE.index("kubectl apply -f deploy/access/namespaces.yaml") < GUIDE.index(later)


def test_only_the_fleet_is_scraped() -> None:
    """The performance gate takes every vLLM histogram in Prometheus for the fleet's."""
    monitor = find("ServiceMonitor", "vllm")
    labels = monitor["spec"]["selector"]["matchLabels"]
    found = [
        m
        for m in of_kind("Service")
        if m.namespace == "ml-models" and labels.items() <= m.content["metadata"]["labels"].items()
    ]
    (service,) = found
    assert service.name == "vllm-service"
    ports = {port["name"] for port in service.content["spec"]["ports"]}
    assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports


@pytest.mark.parametrize("kind", ["ServiceMonitor", "PrometheusRule"])
def test_the_operator_of_prometheus_looks_at_what_carries_its_releases_name(kind: str) -> None:
    released = re.findall(r"--install (\S+) prometheus-community/kube-prometheus-stack", GUIDE)
    assert [m.content["metadata"]["labels"]["release"] for m in of_kind(kind)] == released


def test_the_large_judge_has_its_short_name_where_dagster_runs() -> None:
    alias = find("Service", "judge-large-vllm", "dagster")
    assert alias["spec"]["externalName"] == "judge-large-vllm.ml-models.svc.cluster.local"
