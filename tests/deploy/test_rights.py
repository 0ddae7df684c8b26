"""Each account has exactly the rights that its code uses."""

import inspect
import json
import re
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import dagster_k8s.client
import dagster_k8s.executor
import dagster_k8s.launcher
import pytest

from lora_assets.resources import object_store
from lora_assets.resources.data_bucket import PROCESSED
from lora_assets.serving.discovery import from_deployment, from_selector, from_service
from lora_assets.serving.pod_exec import pod_folder
from tests.serving.test_pod_exec import make_adapter
from tests.support.doubles.kubernetes_api import Deployment, KubernetesApi, Pod, Service
from tests.support.manifests import DEPLOY, PODS, find

Right = tuple[str, str, str]
"""API group, resource and verb."""


def rights(role: str) -> set[Right]:
    rules = find("Role", role)["rules"]
    return {
        each
        for rule in rules
        for each in product(rule["apiGroups"], rule["resources"], rule["verbs"])
    }


def asked_of_the_server(requests: Iterable[str]) -> set[Right]:
    """Return the rights that these requests need, as the API server maps them."""
    asked: set[Right] = set()
    for request in requests:
        path = re.fullmatch(
            r"GET /(?:api|apis/([^/]+))/v1/namespaces/[^/]+/([a-z]+)(/[^/]+)?(/exec)?", request
        )
        assert path, request
        group, resource, name, subresource = path.groups(default="")
        verbs = ["get"] if name else ["list"]
        if subresource:
            # A websocket is a GET; from Kubernetes 1.35 on it needs `create` as well.
            verbs.append("create")
        asked |= {(group, resource + subresource, verb) for verb in verbs}
    return asked


@pytest.mark.integration
def test_the_fleet_role_has_what_discovery_and_deployment_ask_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = KubernetesApi(
        pods=[Pod("vllm-0", tmp_path)],
        services=[Service("vllm-service", {"app": "vllm"})],
        deployments=[Deployment("vllm", {"matchLabels": {"app": "vllm"}})],
    )
    adapter, digest = make_adapter(tmp_path / "adapter", 0)
    with api.serving(tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        from_service("models", "vllm-service")
        from_selector("models", "app=vllm", 8000)
        from_deployment("models", "vllm", 8000)
        folder = pod_folder("/mnt/adapters", "models", "vllm-0", None)
        folder.place(adapter, digest)
        assert folder.contents()["digests"] == {digest: digest}
    assert rights("fleet") == asked_of_the_server(api.requests)
    # Argo's steps find the replicas, and enter none.
    assert rights("replicas") == {each for each in rights("fleet") if each[1] != "pods/exec"}
    entering = {each["name"] for each in find("RoleBinding", "fleet")["subjects"]}
    assert entering == {"fleet-status", "lora-assets"}


def test_the_accounts_that_enter_replicas_enter_no_other_pod_of_the_namespace() -> None:
    """On a real API server 1.36.2 the policy was tried with their tokens (docs/cluster.md)."""
    spec = find("ValidatingAdmissionPolicy", "lora-assets-exec")["spec"]
    (condition,), (validation,) = spec["matchConditions"], spec["validations"]
    entering = find("RoleBinding", "fleet")["subjects"]
    accounts = {f"system:serviceaccount:{each['namespace']}:{each['name']}" for each in entering}
    assert set(re.findall(r"'(system:[^']+)'", condition["expression"])) == accounts
    (names,) = re.findall(r"request.name.matches\('(.+)'\)", validation["expression"])
    of_deployments = {m.name for m in PODS if m.kind == "Deployment" and m.namespace == "ml-models"}
    assert {"vllm", "judge"} <= of_deployments
    pods = {name: f"{name}-7d9f8b6c5d-x2x9k" for name in (*of_deployments, "vllm-judge")}
    assert {name for name, pod in pods.items() if re.search(names, pod)} == {"vllm"}
    assert "object.container == 'vllm'" in validation["expression"]


def right(verb: str, thing: str) -> Right:
    """Return the right that a method of Kubernetes' client needs: `read`, `pod_log`, say."""
    kind, _, subresource = thing.partition("_")
    resource = f"{kind}s/{subresource}" if subresource else f"{kind}s"
    return "batch" if kind == "job" else "", resource, "get" if verb == "read" else verb


def test_the_jobs_role_has_what_dagster_asks_for() -> None:
    modules = (dagster_k8s.client, dagster_k8s.launcher, dagster_k8s.executor)
    calls = {
        call
        for module in modules
        for call in re.findall(r"_api\.([a-z]+)_namespaced_([a-z_]+)\(", inspect.getsource(module))
    }
    # A method of Dagster's own, around create_namespaced_job.
    calls.discard(("create", "job_with_retries"))
    assert rights("jobs") == {right(verb, thing) for verb, thing in calls}


def test_argos_executor_may_report_results_and_nothing_else() -> None:
    results = ("argoproj.io", "workflowtaskresults")
    assert rights("argo-executor") == {(*results, "create"), (*results, "patch")}


def test_the_bucket_may_be_used_as_the_code_uses_it() -> None:
    actions = {
        "get_object": "s3:GetObject",
        "head_object": "s3:GetObject",
        "put_object": "s3:PutObject",
        "list_objects_v2": "s3:ListBucket",
    }
    source = inspect.getsource(object_store)
    used = set(re.findall(r"\b([a-z]+_objects?(?:_v2)?)\b", source))
    bucket = "arn:aws:s3:::my-vllm-data"
    # Steps write records alone; who adds data overwrites nothing.
    for file, read, written in (
        ("s3-policy.json", f"{bucket}/*", f"{bucket}/lora-assets/*"),
        ("s3-data-policy.json", f"{bucket}/{PROCESSED}/*", f"{bucket}/{PROCESSED}/*"),
    ):
        statements = json.loads((DEPLOY / "access" / file).read_text())["Statement"]
        allowed = [(statement["Action"], statement["Resource"]) for statement in statements]
        lists = ("s3:ListBucket", bucket)
        assert allowed == [lists, ("s3:GetObject", read), ("s3:PutObject", written)]
        assert {action for action, _ in allowed} == {actions[name] for name in used}
    assert statements[-1]["Condition"] == {"Null": {"s3:if-none-match": "false"}}


def test_both_accounts_with_the_role_are_trusted_by_it() -> None:
    (statement,) = json.loads((DEPLOY / "access" / "role-trust.json").read_text())["Statement"]
    conditions = statement["Condition"]["StringEquals"]
    (provider,) = (key for key in conditions if key.endswith(":sub"))
    for subject in conditions[provider]:
        _, _, namespace, name = subject.split(":")
        annotations = find("ServiceAccount", name, namespace)["metadata"]["annotations"]
        assert annotations["eks.amazonaws.com/role-arn"].endswith(":role/lora-assets")
    assert "annotations" not in find("ServiceAccount", "dagster")["metadata"]
