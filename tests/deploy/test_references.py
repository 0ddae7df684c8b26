"""Accounts, volumes, Secrets and selectors of a manifest refer to objects that are made."""

import re
from collections.abc import Iterator

import pytest

from lora_assets.kubernetes.step_pods import step_pod
from tests.support import manifests
from tests.support.argo_workflows import STAGES
from tests.support.kubernetes_cluster import EVALUATION_CLAIM, TRAINING_CLAIM

GUIDE = (manifests.REPOSITORY / "docs" / "cluster.md").read_text()
REFERRED = ("PersistentVolumeClaim", "Role", "ServiceAccount")


def selected(selector: manifests.Object, namespace: str | None) -> list[manifests.Manifest]:
    """Return the workloads whose pods have these labels."""
    return [
        manifest
        for manifest in manifests.WITH_PODS
        if manifest.namespace == namespace and selector.items() <= manifest.pod_labels.items()
    ]


@pytest.mark.parametrize(
    "service", [m for m in manifests.of_kind("Service") if "selector" in m.content["spec"]], ids=str
)
def test_a_service_selects_one_workload_and_a_port_of_it(service: manifests.Manifest) -> None:
    (workload,) = selected(service.content["spec"]["selector"], service.namespace)
    targets = {port["targetPort"] for port in service.content["spec"]["ports"]}
    assert targets <= workload.ports.keys()


@pytest.mark.parametrize("manifest", manifests.WITH_PODS, ids=str)
def test_a_workload_selects_its_own_pods_and_probes_a_port_that_it_has(
    manifest: manifests.Manifest,
) -> None:
    if manifest.kind == "Deployment":
        labels = manifest.content["spec"]["selector"]["matchLabels"]
        assert selected(labels, manifest.namespace) == [manifest]
    for container in manifest.containers:
        ports = {port["name"] for port in container.get("ports", ())}
        probes = [container[key] for key in container if key.endswith("Probe")]
        assert {probe["httpGet"]["port"] for probe in probes} <= ports


def test_the_budget_is_for_the_replicas() -> None:
    (budget,) = manifests.of_kind("PodDisruptionBudget")
    labels = budget.content["spec"]["selector"]["matchLabels"]
    assert [m.name for m in selected(labels, budget.namespace)] == ["vllm"]


@pytest.mark.parametrize("manifest", manifests.PODS, ids=str)
def test_volumes_are_mounted_and_limited(manifest: manifests.Manifest) -> None:
    volumes = {volume["name"]: volume for volume in manifest.pod_spec["volumes"]}
    mounts = {mount["name"] for c in manifest.containers for mount in c["volumeMounts"]}
    assert mounts == volumes.keys()
    for volume in volumes.values():
        made = {"persistentVolumeClaim", "configMap"} & volume.keys()
        assert made or volume["emptyDir"]["sizeLimit"]


def references() -> Iterator[tuple[str, str | None, str]]:
    """Yield kind, namespace and name of each claim, role and account that is asked for."""
    for claim in (TRAINING_CLAIM, EVALUATION_CLAIM):
        yield "PersistentVolumeClaim", "dagster", claim
    values = manifests.dagster_values()
    for part in (values, values["dagster-user-deployments"]):
        yield "ServiceAccount", "dagster", part["serviceAccount"]["name"]
    yield "ServiceAccount", "dagster", manifests.training_pod()["service_account_name"]
    for pod in manifests.PODS:
        for volume in pod.pod_spec["volumes"]:
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                yield "PersistentVolumeClaim", pod.namespace, claim
        if "serviceAccountName" in pod.pod_spec:
            yield "ServiceAccount", pod.namespace, pod.pod_spec["serviceAccountName"]
    for binding in manifests.of_kind("RoleBinding"):
        yield "Role", binding.namespace, binding.content["roleRef"]["name"]
        for subject in binding.content["subjects"]:
            yield "ServiceAccount", subject["namespace"], subject["name"]


def test_claims_roles_and_accounts_are_made_and_each_is_used() -> None:
    assert set(references()) == {m.key for m in manifests.MANIFESTS if m.kind in REFERRED}
    assert len(manifests.of_kind("RoleBinding")) == len(manifests.of_kind("Role"))


def test_a_pod_without_rights_has_no_token() -> None:
    for pod in manifests.WITH_PODS:
        spec = pod.pod_spec
        assert "serviceAccountName" in spec or spec["automountServiceAccountToken"] is False


S3_CREDENTIALS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3"}


def created() -> dict[tuple[str, str], set[str]]:
    """Return the keys of each Secret that the guide creates, by namespace and name."""
    commands = re.findall(r"^\$ secret (\S+) (\S+)((?:.*\\\n)*.*)$", GUIDE, re.M)
    return {
        (namespace, name): set(re.findall(r"\s([A-Za-z0-9_]+)=", keys))
        for namespace, name, keys in commands
    }


def test_the_guide_creates_every_secret_that_a_container_reads() -> None:
    containers = [
        *((str(m.namespace), c) for m in manifests.PODS for c in m.containers),
        ("dagster", manifests.code_location()),
        ("dagster", step_pod("train")["dagster-k8s/config"]["container_config"]),
    ]
    asked = {
        (namespace, ref["name"], ref["key"])
        for namespace, container in containers
        for variable in manifests.variables(container).values()
        for source in [variable.get("valueFrom") or variable.get("value_from") or {}]
        if (ref := source.get("secretKeyRef") or source.get("secret_key_ref"))
    }
    assert ("dagster", "hf-token", "token") in asked
    for namespace, name, key in asked:
        assert key in created()[namespace, name], (namespace, name)


def test_everything_that_may_read_the_bucket_takes_an_optional_key_for_it() -> None:
    optional, of_mlflow = (
        {"secretRef": {"name": name, "optional": True}}
        for name in ("s3-credentials", "mlflow-auth")
    )
    readers = set()
    for manifest in manifests.PODS:
        for container in manifest.containers:
            if optional in (given := container.get("envFrom", ())):
                readers.add(f"{manifest} {container.get('name', 'step')}")
                # What reads the bucket reads MLflow.
                assert (of_mlflow in given) == (manifest.name != "mlflow"), manifest
    assert readers == {
        "vllm/deployment.yaml: Deployment vllm restore",
        "mlflow/deployment.yaml: Deployment mlflow mlflow",
        "monitoring/fleet-status.yaml: CronJob fleet-status status",
        "argo/lora-pipeline.yaml: Workflow lora-pipeline-check step",
        *(f"argo/{stage}.yaml: Workflow {stage}-step step" for stage in STAGES),
    }
    given = manifests.variables(manifests.code_location())
    for name in S3_CREDENTIALS:
        key = {"name": "s3-credentials", "key": name, "optional": True}
        assert given[name]["valueFrom"]["secretKeyRef"] == key
    assert created()["ml-models", "s3-credentials"] == {*S3_CREDENTIALS, "AWS_DEFAULT_REGION"}
    assert created()["dagster", "s3-credentials"] == S3_CREDENTIALS


def test_the_guide_applies_every_folder_and_makes_namespaces_before_what_goes_into_them() -> None:
    applied = re.findall(r"kubectl apply -[kf] ([a-z0-9./-]+)", GUIDE)
    made = {"argo/templates/"}  # By `make argo-templates`, in the line before.
    assert all((manifests.REPOSITORY / path).exists() for path in set(applied) - made)
    assert "$ make argo-templates\n$ kubectl apply -f argo/templates/" in GUIDE
    apart = {"deploy/judge/base", "deploy/judge/llama-70b"}  # A base; the other judge.
    assert {f"deploy/{folder}" for folder in manifests.FOLDERS} - apart <= set(applied)
    for later in ("argo/argo-workflows", "$ kubectl apply -k", "$ kubectl -n ml-models"):
        assert GUIDE.index("kubectl apply -f deploy/access/namespaces.yaml") < GUIDE.index(later)


def test_only_the_fleet_is_scraped() -> None:
    """The performance gate takes every vLLM histogram in Prometheus for the fleet's."""
    monitor = manifests.find("ServiceMonitor", "vllm")["spec"]
    labels = monitor["selector"]["matchLabels"].items()
    services = [m.content for m in manifests.of_kind("Service") if m.namespace == "ml-models"]
    (service,) = (each for each in services if labels <= each["metadata"]["labels"].items())
    assert service["metadata"]["name"] == "vllm-service"
    ports = {port["name"] for port in service["spec"]["ports"]}
    assert {endpoint["port"] for endpoint in monitor["endpoints"]} <= ports


@pytest.mark.parametrize("kind", ["ServiceMonitor", "PrometheusRule"])
def test_the_operator_of_prometheus_looks_at_what_carries_its_releases_name(kind: str) -> None:
    released = re.findall(r"--install (\S+) prometheus-community/kube-prometheus-stack", GUIDE)
    assert [m.content["metadata"]["labels"]["release"] for m in manifests.of_kind(kind)] == released


def test_the_large_judge_has_its_short_name_where_dagster_runs() -> None:
    alias = manifests.find("Service", "judge-large-vllm", "dagster")
    assert alias["spec"]["externalName"] == "judge-large-vllm.ml-models.svc.cluster.local"
