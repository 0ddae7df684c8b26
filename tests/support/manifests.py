"""The manifests of deploy/, and the pods of argo/, read for the tests."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from tests.support.argo_workflows import WORKFLOWS

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
DATA = Path(__file__).parent / "data"
REFUSED = yaml.safe_load((DATA / "pod_configurations.yaml").read_text())
APPLIED = (
    *("access", "access/own-s3", "mlflow", "dagster", "dagster/existing-postgresql"),
    *("dagster/sign-in", "vllm", "judge/mistral-7b", "judge/llama-70b", "monitoring"),
)
"""The folders for `kubectl apply -k`."""

FOLDERS = (*APPLIED, "judge/base")
KUBERNETES = "1.37"
CUSTOM = ("monitoring.coreos.com", "kustomize.config.k8s.io")
"""API groups that are not in Kubernetes' own schemas."""

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Manifest:
    """One object of a file, or of kustomize's output."""

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
    def key(self) -> tuple[str, str | None, str]:
        return self.kind, self.namespace, self.name

    @property
    def pod(self) -> Object:
        """Return the pod template; an object that makes no pods has an empty one."""
        spec = self.content.get("spec", {})
        if self.kind == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        return spec.get("template", {})

    @property
    def pod_spec(self) -> Object:
        return self.pod.get("spec", {})

    @property
    def pod_labels(self) -> Mapping[str, str]:
        return self.pod["metadata"]["labels"]

    @property
    def containers(self) -> list[Object]:
        return [*self.pod_spec.get("initContainers", ()), *self.pod_spec.get("containers", ())]

    @property
    def ports(self) -> Mapping[str, int]:
        """Return the ports of the containers by name."""
        return {p["name"]: p["containerPort"] for c in self.containers for p in c.get("ports", ())}


def kustomization(folder: str) -> Object:
    return yaml.safe_load((DEPLOY / folder / "kustomization.yaml").read_text())


def resources(folder: str) -> Iterator[Manifest]:
    """Read the objects of a folder's own files, before kustomize changes anything."""
    for name in kustomization(folder)["resources"]:
        if name.endswith(".yaml"):
            text = (DEPLOY / folder / name).read_text()
            for content in yaml.safe_load_all(text):
                yield Manifest(f"{folder}/{name}", content)


MANIFESTS = tuple(manifest for folder in FOLDERS for manifest in resources(folder))
WITH_PODS = tuple(manifest for manifest in MANIFESTS if manifest.pod)


def argo_pods() -> Iterator[Manifest]:
    """Make a pod of each container template of argo/, as Argo's controller does."""
    for name, workflow in WORKFLOWS.items():
        namespace = workflow["metadata"]["namespace"]
        for template in workflow["spec"]["templates"]:
            if "container" in template:
                labels = {"workflows.argoproj.io/workflow": f"{name}-x7k2p"}
                spec = {**template, "containers": [template["container"]]}
                pod = {"metadata": {"labels": labels}, "spec": spec}
                metadata = {"name": f"{name}-{template['name']}", "namespace": namespace}
                content = {"kind": "Workflow", "metadata": metadata, "spec": {"template": pod}}
                yield Manifest(f"argo/{name}.yaml", content)


PODS = (*WITH_PODS, *argo_pods())


def find(kind: str, name: str, namespace: str | None = None) -> Object:
    """Return the one object of that kind and name."""
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
    """Validate an object against Kubernetes' schema and refuse unknown fields."""
    kubernetes_validate.validate(json.loads(json.dumps(content)), KUBERNETES, strict=True)


def variables(container: Object) -> Mapping[str, Object]:
    """Return a container's variables by name; of two with one name Kubernetes takes the last."""
    return {variable["name"]: variable for variable in container.get("env", ())}


def dagster_values() -> Object:
    return yaml.safe_load((DEPLOY / "dagster" / "values.yaml").read_text())


def code_location(values: Object | None = None) -> Object:
    (deployment,) = (values or dagster_values())["dagster-user-deployments"]["deployments"]
    return deployment


def training_pod(values: Object | None = None) -> Object:
    """Return what a deployment changes in the pod of the training step."""
    changed = json.loads(variables(code_location(values))["LORA_ASSETS_STEP_PODS"]["value"])
    return changed["adapter"]["pod_spec_config"]
