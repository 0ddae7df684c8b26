"""Every host, Service, port, workload, label and image that a file names is made by something."""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping

import pytest

from tests.support.argo_workflows import ARGO
from tests.support.doubles.dagster_chart import NAMESPACE, objects
from tests.support.manifests import (
    APPLIED,
    DEPLOY,
    MANIFESTS,
    PODS,
    REPOSITORY,
    code_location,
    dagster_values,
    kustomization,
    resources,
    variables,
)

CHART = objects(dagster_values())
PAGES = [REPOSITORY / "docs" / name for name in ("argo.md", "cluster.md", "kubernetes.md")]
FILES = [*ARGO.glob("*.yaml"), *DEPLOY.rglob("*.yaml"), *DEPLOY.rglob("*.json"), *PAGES]
TEXTS = {str(path.relative_to(REPOSITORY)): path.read_text() for path in FILES}

RENAMED = {
    ("Service", "judge"): ("judge-vllm-service", "judge-large-vllm"),
    ("Deployment", "judge"): ("judge-vllm", "judge-large-vllm"),
}
"""The names in the judge's overlays, which tests/manifests renders."""

OF_OTHER_CHARTS = {
    # kube-prometheus-stack: its release, and the name of the chart.
    ("Service", "ai-platform", "monitoring-kube-prometheus-prometheus"): {9090}
}
EXAMPLES = {"minio.s3:9000", "seaweedfs-s3.s3:8333", "rook-ceph-rgw-store.rook-ceph:80"}
"""S3 servers in the table of docs/cluster.md, which a team may have."""


def made() -> Mapping[tuple[str, str, str], set[int]]:
    """Return the ports of every object by kind, namespace and name; a workload has none."""
    found: dict[tuple[str, str, str], set[int]] = {**OF_OTHER_CHARTS}
    for manifest in (*MANIFESTS, *resources("trial")):
        ports = {port["port"] for port in manifest.content.get("spec", {}).get("ports", ())}
        for name in RENAMED.get((manifest.kind, manifest.name), (manifest.name,)):
            found.setdefault((manifest.kind, str(manifest.namespace), name), set()).update(ports)
    for each in CHART:
        found[each["kind"], NAMESPACE, each["name"]] = set(each.get("ports", {}).values())
    return found


def hosts() -> Iterator[tuple[str, str, str, int]]:
    """Yield each `http://service.namespace:port` with the file that names it."""
    for where, text in TEXTS.items():
        for host in re.findall(r"http://([a-z][a-z0-9-]+\.[a-z0-9-]+:\d+)", text):
            if host not in EXAMPLES:
                service, namespace, port = re.split("[.:]", host)
                yield where, service, namespace, int(port)


@pytest.mark.parametrize(("where", "service", "namespace", "port"), sorted(set(hosts())))
def test_a_url_names_a_service_and_a_port_of_it(
    where: str, service: str, namespace: str, port: int
) -> None:
    assert port in made()["Service", namespace, service], where


@pytest.mark.parametrize("where", [str(page.relative_to(REPOSITORY)) for page in PAGES])
def test_a_command_of_the_guide_names_an_object_that_is_there(where: str) -> None:
    kinds = {"svc": "Service", "deploy": "Deployment", "cronjob": "CronJob"}
    for line in re.findall(r"^.*kubectl -n .*$", TEXTS[where], re.M):
        namespace = re.findall(r"kubectl -n (\S+)", line)[0]
        named = re.findall(r"\b(svc|deploy|cronjob)/([a-z-]+)(?: \d+:(\d+))?", line)
        for kind, name, port in named:
            ports = made()[kinds[kind], namespace, name]
            assert not port or int(port) in ports, line


def images() -> set[str]:
    """Return every image that the files name, and those of Dagster's chart."""
    renamed = {
        image["name"]: f"{image['newName']}:{image['newTag']}"
        for folder in APPLIED
        for image in kustomization(folder).get("images", ())
    }
    used = {container["image"] for pod in PODS for container in pod.containers}
    of_chart = {c["image"] for each in CHART for c in each.get("containers", ())}
    step_pods = json.loads(variables(code_location())["LORA_ASSETS_STEP_PODS"]["value"])
    steps = {each["container_config"]["image"] for each in step_pods.values()}
    recipes = (path.read_text() for path in DEPLOY.glob("images/*/Dockerfile"))
    bases = {name for text in recipes for name in re.findall(r"^FROM (\S+[:/]\S+)", text, re.M)}
    typed = re.findall(r"--image (\S+)", TEXTS["docs/cluster.md"])
    trial = {c["image"] for each in resources("trial") for c in each.containers}
    others = {*of_chart, *steps, *bases, *typed, *(trial - {"lora-assets-trial"})}
    return {*(renamed.get(image, image) for image in used), *others}


def test_the_guide_lists_every_image_that_a_cluster_pulls() -> None:
    _, _, section = TEXTS["docs/cluster.md"].partition("## Behind a closed network")
    listed = re.findall(r"^\| `(\S+)` \|", section, re.M)
    assert sorted(listed) == sorted(images())


def test_our_images_have_the_packages_version_and_all_others_a_tag() -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    for image in images() - {"curlimages/curl"}:
        name, _, tag = image.rpartition(":")
        assert name, image
        assert tag != "latest", image
        if re.search(r"/vllm-(deployment|training)-tools$", name):
            assert tag == version, image
