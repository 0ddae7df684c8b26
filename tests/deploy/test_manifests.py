"""Each manifest by itself: Kubernetes' schema, and what every pod must have."""

from copy import deepcopy
from typing import Any

import kubernetes_validate
import pytest

from tests.support import manifests


@pytest.mark.parametrize("manifest", manifests.WITH_PODS, ids=str)
def test_a_misspelt_field_would_be_found(manifest: manifests.Manifest) -> None:
    content: Any = deepcopy(manifest.content)
    content["spec"]["tempalte"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="tempalte"):
        manifests.validate(content)


@pytest.mark.parametrize("folder", manifests.FOLDERS)
def test_every_file_of_a_folder_is_in_its_kustomization(folder: str) -> None:
    listed = manifests.kustomization(folder)
    named = {name for name in listed["resources"] if name.endswith(".yaml")}
    named |= {patch["path"] for patch in listed.get("patches", ()) if "path" in patch}
    files = {path.name for path in (manifests.DEPLOY / folder).glob("*.yaml")}
    of_helm = {name for name in files if name.startswith("values")}
    assert named == files - of_helm - {"kustomization.yaml"}
    for generated in listed.get("configMapGenerator", ()):
        assert all((manifests.DEPLOY / folder / file).is_file() for file in generated["files"])


def test_every_object_says_its_namespace_and_is_there_once() -> None:
    namespaces = {m.name for m in manifests.MANIFESTS if m.kind == "Namespace"}
    assert namespaces == {"ml-models", "dagster"}
    for manifest in manifests.MANIFESTS:
        if manifest.kind != "Namespace" and not manifest.kind.startswith("ValidatingAdmission"):
            # That of Prometheus, which comes first.
            elsewhere = manifest.where.startswith("mlflow/")
            assert manifest.namespace in ({"ai-platform"} if elsewhere else namespaces), manifest
    assert len({m.key for m in manifests.MANIFESTS}) == len(manifests.MANIFESTS)


@pytest.mark.parametrize("manifest", manifests.PODS, ids=str)
def test_a_pod_is_confined(manifest: manifests.Manifest) -> None:
    """Kubernetes' restricted profile, and a read-only root besides."""
    pod = manifest.pod_spec["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert pod["runAsUser"] > 0
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in manifest.containers:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert any(mount["mountPath"] == "/tmp" for mount in container["volumeMounts"])


@pytest.mark.parametrize("manifest", manifests.PODS, ids=str)
def test_a_container_has_requests_and_limits(manifest: manifests.Manifest) -> None:
    for container in manifest.containers:
        asked, limit = (container["resources"][each] for each in ("requests", "limits"))
        assert {"cpu", "memory"} <= asked.keys() == limit.keys()
        assert asked.get("nvidia.com/gpu") == limit.get("nvidia.com/gpu")
