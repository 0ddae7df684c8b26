"""The objects that kustomize renders, as `kubectl apply -k` sends them."""

import os
import subprocess
from collections.abc import Mapping
from functools import cache

import pytest
import yaml

from tests.support.manifests import APPLIED, CUSTOM, DEPLOY, Manifest, resources, validate

pytestmark = pytest.mark.e2e


KUSTOMIZE = os.environ.get("KUSTOMIZE", "kubectl kustomize").split()
"""`make test-manifests` installs one."""


@cache
def rendered(folder: str) -> tuple[Manifest, ...]:
    command = [*KUSTOMIZE, str(DEPLOY / folder)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert "deprecated" not in made.stderr
    return tuple(Manifest(folder, content) for content in yaml.safe_load_all(made.stdout))


def one(folder: str, kind: str) -> Manifest:
    (found,) = (manifest for manifest in rendered(folder) if manifest.kind == kind)
    return found


@pytest.mark.parametrize("folder", APPLIED)
def test_what_is_applied_keeps_to_the_schemas(folder: str) -> None:
    for manifest in rendered(folder):
        if manifest.content["apiVersion"].split("/")[0] not in CUSTOM:
            validate(manifest.content)


@pytest.mark.parametrize("folder", ["access", "mlflow", "dagster"])
def test_a_plain_folder_is_applied_as_it_stands(folder: str) -> None:
    written = {manifest.key: manifest.content for manifest in resources(folder)}
    assert {manifest.key: manifest.content for manifest in rendered(folder)} == written


def test_our_image_comes_from_the_registry_and_those_of_others_stay() -> None:
    images = {
        container["image"]
        for folder in APPLIED
        for manifest in rendered(folder)
        for container in manifest.containers
    }
    registry = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
    assert images == {
        f"{registry}/vllm-deployment-tools:0.1.0",
        "vllm/vllm-openai:v0.32.0",
        "ghcr.io/mlflow/mlflow:v3.17.2-full",
        "quay.io/oauth2-proxy/oauth2-proxy:v7.15.5",
    }


JUDGES: Mapping[str, tuple[str, str, str]] = {
    "judge/mistral-7b": ("judge-vllm-service", "mistralai/Mistral-7B-Instruct-v0.3", "1"),
    "judge/llama-70b": ("judge-large-vllm", "meta-llama/Llama-3.3-70B-Instruct", "4"),
}


@pytest.mark.parametrize("folder", JUDGES)
def test_a_judge_has_its_name_its_model_and_its_gpus(folder: str) -> None:
    name, model, gpus = JUDGES[folder]
    deployment = one(folder, "Deployment")
    (container,) = deployment.containers
    assert one(folder, "Service").name == name
    assert container["args"][0] == model
    assert container["resources"]["limits"]["nvidia.com/gpu"] == gpus
    parallel = [arg for arg in container["args"] if arg.startswith("--tensor-parallel-size")]
    assert parallel == ([f"--tensor-parallel-size={gpus}"] if gpus != "1" else [])


def test_both_judges_can_stand_beside_each_other() -> None:
    made = [m for folder in JUDGES for m in rendered(folder)]
    assert len({m.key for m in made}) == len(made)
    first, second = (one(folder, "Deployment").pod_labels for folder in JUDGES)
    assert first["judge"] != second["judge"]
    for folder, labels in zip(JUDGES, (first, second), strict=True):
        deployment, service, policy = (
            one(folder, kind).content["spec"] for kind in ("Deployment", "Service", "NetworkPolicy")
        )
        assert deployment["selector"]["matchLabels"] == labels
        assert service["selector"] == labels
        assert policy["podSelector"]["matchLabels"] == labels


def test_the_dashboard_arrives_whole() -> None:
    dashboard = one("monitoring", "ConfigMap")
    file = "lora-assets.json"
    assert dashboard.content["data"] == {file: (DEPLOY / "monitoring" / file).read_text()}
    assert dashboard.namespace == "ai-platform"
    assert dashboard.content["metadata"]["labels"] == {"grafana_dashboard": "1"}
