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
import yaml

from lora_assets.assets.adapter import adapter
from lora_assets.cli import check, stages
from lora_assets.resources import object_store
from lora_assets.resources.data_bucket import PROCESSED
from lora_assets.serving.discovery import from_deployment, from_selector, from_service
from lora_assets.serving.pod_exec import pod_folder
from tests.serving.test_pod_exec import make_adapter
from tests.support.doubles.kubernetes_api import Deployment, KubernetesApi, Pod, Service
from tests.support.manifests import (
    DEPLOY,
    PODS,
    dagster_values,
    find,
    of_kind,
    training_pod,
)

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


def test_the_trainings_account_has_no_rights_and_enters_no_pod() -> None:
    trial = yaml.safe_load((DEPLOY / "trial" / "values.yaml").read_text())
    for values in (dagster_values(), trial):
        assert training_pod(values)["service_account_name"] == "lora-assets-training"
    bound = [each for m in of_kind("RoleBinding") for each in m.content["subjects"]]
    assert "lora-assets" in {each["name"] for each in bound}
    assert "lora-assets-training" not in {each["name"] for each in bound}


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


BUCKET = "arn:aws:s3:::my-vllm-data"
DATA, RECORDS = f"{BUCKET}/{PROCESSED}/*", f"{BUCKET}/lora-assets/records"


def policy(name: str) -> dict[str, list[str]]:
    """Return what each action of a role may be done to."""
    statements = json.loads((DEPLOY / "access" / f"{name}.json").read_text())["Statement"]
    allowed = {each["Action"]: each["Resource"] for each in statements}
    return {action: [on] if isinstance(on, str) else on for action, on in allowed.items()}


def test_the_bucket_may_be_used_as_the_code_uses_it() -> None:
    """Each role but the reader's does all that a store does; who adds data overwrites nothing."""
    actions = {
        "get_object": "s3:GetObject",
        "head_object": "s3:GetObject",
        "put_object": "s3:PutObject",
        "list_objects_v2": "s3:ListBucket",
    }
    source = inspect.getsource(object_store)
    used = {actions[each] for each in re.findall(r"\b([a-z]+_objects?(?:_v2)?)\b", source)}
    for name, read, written in (
        ("s3-policy", [f"{BUCKET}/*"], [f"{BUCKET}/lora-assets/*"]),
        ("s3-data-policy", [DATA], [DATA]),
    ):
        allowed = {"s3:ListBucket": [BUCKET], "s3:GetObject": read, "s3:PutObject": written}
        assert policy(name) == allowed
        assert allowed.keys() == used
    data = json.loads((DEPLOY / "access" / "s3-data-policy.json").read_text())["Statement"]
    assert data[-1]["Condition"] == {"Null": {"s3:if-none-match": "false"}}


def test_a_training_reads_data_and_its_inputs_record_and_writes_its_own() -> None:
    inputs = [f"{RECORDS}/{key.to_user_string()}/*" for key in adapter.dependency_keys]
    assert policy("s3-policy-training") == {
        "s3:ListBucket": [BUCKET],
        "s3:GetObject": [DATA, *inputs],
        "s3:PutObject": [f"{RECORDS}/{adapter.key.to_user_string()}/*"],
    }


def test_argos_steps_read_data_and_write_nothing() -> None:
    assert policy("s3-policy-reader") == {"s3:ListBucket": [BUCKET], "s3:GetObject": [DATA]}
    # Their commands make the runs' records on a Dagster elsewhere, and ask a bucket this alone.
    source = inspect.getsource(check) + inspect.getsource(stages)
    asked = set(re.findall(r"\bbucket\.([a-z_]+)\(|data_bucket\.([a-z_]+)\(", source))
    assert {one or other for one, other in asked} == {"read", "read_unchanged"}
    assert "io_manager" not in source


def test_each_account_with_a_role_is_trusted_by_its_own() -> None:
    trusted = {}
    for file in sorted((DEPLOY / "access").glob("role-trust*.json")):
        (statement,) = json.loads(file.read_text())["Statement"]
        conditions = statement["Condition"]["StringEquals"]
        (subject,) = (value for key, value in conditions.items() if key.endswith(":sub"))
        trusted[subject] = f":role/lora-assets{file.stem.removeprefix('role-trust')}"
        assert (DEPLOY / "access" / file.name.replace("role-trust", "s3-policy")).exists()
    annotated = {
        f"system:serviceaccount:{m.namespace}:{m.name}": arn[arn.index(":role/") :]
        for m in of_kind("ServiceAccount")
        if (arn := m.content["metadata"].get("annotations", {}).get("eks.amazonaws.com/role-arn"))
    }
    assert annotated == trusted
    assert len(set(trusted.values())) == len(trusted) == 3
