"""What lies in deploy/, read for the tests."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
FOLDERS = (
    *("access", "mlflow", "dagster", "dagster/existing-postgresql", "vllm"),
    *("judge/base", "judge/mistral-7b", "judge/llama-70b"),
    "monitoring",
)
KUBERNETES = "1.37"
CUSTOM = ("monitoring.coreos.com", "kustomize.config.k8s.io")
"""Groups that Kubernetes' own schemas don't have."""

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Manifest:
    """One object of a file, or of what kustomize made."""

    where: str
    content: Object

    def __str__(self) -> str:
        return f"{self.where}: {self.kind} {self.name}"

    @property
    def kind(self) -> str:
        return str(self.content["kind"])

    @property
    def name(self) -> str:
        return str(self.content["metadata"]["name"])

    @property
    def namespace(self) -> str | None:
        return self.content["metadata"].get("namespace")

    @property
    def pod(self) -> Object | None:
        """The pod template, where there is one."""
        spec = self.content.get("spec", {})
        if self.kind == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        return spec.get("template")

    @property
    def containers(self) -> list[Object]:
        if self.pod is None:
            return []
        return [*self.pod["spec"].get("initContainers", ()), *self.pod["spec"]["containers"]]


def kustomization(folder: str) -> Object:
    return yaml.safe_load((DEPLOY / folder / "kustomization.yaml").read_text())


def resources(folder: str) -> Iterator[Manifest]:
    """The objects of a folder's own files, before kustomize changes anything."""
    for name in kustomization(folder)["resources"]:
        if name.endswith(".yaml"):
            text = (DEPLOY / folder / name).read_text()
            for content in yaml.safe_load_all(text):
                yield Manifest(f"{folder}/{name}", content)


MANIFESTS = tuple(manifest for folder in FOLDERS for manifest in resources(folder))
WITH_PODS = tuple(manifest for manifest in MANIFESTS if manifest.pod)


def find(kind: str, name: str, namespace: str | None = None) -> Object:
    """The one object of that kind and name."""
    (found,) = (
        manifest.content
        for manifest in MANIFESTS
        if (manifest.kind, manifest.name) == (kind, name)
        and (namespace is None or manifest.namespace == namespace)
    )
    return found


def of_kind(kind: str) -> list[Manifest]:
    return [manifest for manifest in MANIFESTS if manifest.kind == kind]


def validate(content: Object) -> None:
    """Hold an object against Kubernetes' schema; a field that it doesn't have is refused."""
    kubernetes_validate.validate(json.loads(json.dumps(content)), KUBERNETES, strict=True)


def dagster_values() -> Object:
    return yaml.safe_load((DEPLOY / "dagster" / "values.yaml").read_text())


def code_location() -> Object:
    (deployment,) = dagster_values()["dagster-user-deployments"]["deployments"]
    return deployment
