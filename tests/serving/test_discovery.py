import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lora_assets import bounded_calls
from lora_assets.errors import LoraAssetsError
from lora_assets.resources.fleet import Fleet
from lora_assets.serving.discovery import DiscoveredReplica as Found
from lora_assets.serving.discovery import from_deployment, from_selector, from_service
from lora_assets.serving.pod_exec import pod_folder
from tests.support.doubles.kubernetes_api import Deployment, KubernetesApi, Pod, Service
from tests.support.doubles.trickling import HEADERS, trickling


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesApi]:
    api = KubernetesApi()
    with api.serving(tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        yield api


@pytest.fixture
def fleet(api: KubernetesApi, tmp_path: Path) -> KubernetesApi:
    """Two replicas that are ready among pods that are not, or that are something else."""
    api.services = [Service("vllm", {"app": "vllm"}), Service("other", {"app": "other"})]
    api.pods = [
        Pod("vllm-2", tmp_path, ip="fd00::2", ready=True),
        Pod("vllm-1", tmp_path, ip="10.0.0.1", ready=False),
        Pod("vllm-0", tmp_path, {"app": "vllm", "tier": "gpu"}, ip="10.0.0.0", node="gpu-7"),
        Pod("vllm-3", tmp_path, ip="10.0.0.3", deleted=True),
        Pod("vllm-4", tmp_path, ip=None, ready=False, phase="Pending"),
        Pod("judge-0", tmp_path, ip="10.0.0.4", labels={"app": "judge"}),
        Pod("vllm-0", tmp_path, ip="10.0.1.0", namespace="elsewhere"),
    ]
    return api


BEHIND_SERVICE = (
    Found("http://10.0.0.0:8000", "models", "vllm-0", "ready", "gpu-7"),
    Found("http://10.0.0.1:8000", "models", "vllm-1", "not ready"),
    Found("http://[fd00::2]:8000", "models", "vllm-2", "ready"),
    Found("http://10.0.0.3:8000", "models", "vllm-3", "terminating"),
)
LABELLED = (*BEHIND_SERVICE, Found("", "models", "vllm-4", "pending"))


@pytest.mark.usefixtures("fleet")
def test_the_pods_behind_a_service_are_found_with_their_readiness() -> None:
    assert from_service("models", "vllm") == BEHIND_SERVICE


@pytest.mark.usefixtures("fleet")
def test_the_pods_with_labels_are_found_with_their_readiness() -> None:
    assert from_selector("models", "app=vllm", 8000) == LABELLED
    assert from_selector("models", "app=vllm,tier=gpu", 8000) == LABELLED[:1]
    (found,) = from_selector("elsewhere", "app=vllm", 9000)
    assert found.url == "http://10.0.1.0:9000"


def test_the_pods_of_a_deployment_are_found_by_its_selector(fleet: KubernetesApi) -> None:
    fleet.deployments = [Deployment("vllm", {"matchLabels": {"app": "vllm"}})]
    for name, key, operator, values in (
        ("set", "app", "In", ["vllm", "other"]),
        ("gpu", "tier", "Exists", None),
        ("cpu", "tier", "DoesNotExist", None),
        ("none", "app", "NotIn", ["judge", "vllm"]),
    ):
        terms = [{"key": key, "operator": operator, "values": values}]
        selector = {"matchLabels": {"app": "vllm"}, "matchExpressions": terms}
        fleet.deployments.append(Deployment(name, selector))
    assert from_deployment("models", "vllm", 8000) == LABELLED
    assert from_deployment("models", "set", 8000) == LABELLED
    assert from_deployment("models", "gpu", 8000) == LABELLED[:1]
    assert from_deployment("models", "cpu", 8000) == LABELLED[1:]
    with pytest.raises(LoraAssetsError, match=r"no running pod .* in namespace models"):
        from_deployment("models", "none", 8000)
    with pytest.raises(LoraAssetsError, match=r"models/judge: .*not found\..*VLLM_DEPLOYMENT"):
        from_deployment("models", "judge", 8000)


PLACES = {"vllm_url": "http://all", "adapters_dir": "/mnt/adapters"}
SOURCES = (
    {"deployment": "vllm", "namespace": "models"},
    {"service": "models/vllm"},
    {"pod_selector": "models/app=vllm"},
)


@pytest.fixture(params=SOURCES, ids=lambda source: "-".join(source))
def source(fleet: KubernetesApi, request: pytest.FixtureRequest) -> dict[str, Any]:
    """What says which pods are the fleet's."""
    fleet.deployments = [Deployment("vllm", {"matchLabels": {"app": "vllm"}})]
    return {**PLACES, **request.param}


def test_the_ready_pods_are_the_fleet_called_by_pod_and_node(source: dict[str, Any]) -> None:
    replicas = Fleet(**source).discover()
    assert {each.name: each.url for each in replicas.members} == {
        "vllm-0 on gpu-7": "http://10.0.0.0:8000",
        "vllm-2": "http://[fd00::2]:8000",
    }
    named = Fleet(**source | {"service": "", "pod_selector": ""}, replica_urls=["http://one/"])
    assert [replica.name for replica in named.discover().members] == ["http://one"]


def test_one_operation_asks_kubernetes_for_the_replicas_once(
    fleet: KubernetesApi, source: dict[str, Any]
) -> None:
    replicas = Fleet(**source).discover()
    asked = len(fleet.requests)
    assert asked <= 2
    assert len(replicas.folders) == len(replicas.members) == 2
    assert len(fleet.requests) == asked


def test_no_ready_replica_is_refused_with_the_state_of_each_pod(
    fleet: KubernetesApi, source: dict[str, Any]
) -> None:
    for pod in fleet.pods[:3]:
        pod.ready = False
    with pytest.raises(LoraAssetsError, match=r"^0 of at least 1 vLLM replica") as caught:
        Fleet(**source).discover()
    states = ("vllm-0 on gpu-7 is not ready", "vllm-2 is not ready", "vllm-3 is terminating")
    assert all(state in caught.value.cause for state in states)
    assert "\n" not in str(caught.value)


def test_fewer_ready_replicas_than_asked_for_are_refused_by_name(source: dict[str, Any]) -> None:
    assert len(Fleet(**source, min_replicas=2).discover().members) == 2
    told = r"2 of at least 3 .*vllm-2 is ready, vllm-1 is not ready.*VLLM_MIN_REPLICAS"
    with pytest.raises(LoraAssetsError, match=told):
        Fleet(**source, min_replicas=3).discover()


def test_a_pod_that_has_ended_is_no_replica(fleet: KubernetesApi) -> None:
    fleet.pods[2].phase = "Failed"
    assert from_selector("models", "app=vllm", 8000) == LABELLED[1:]


def test_an_endpoint_of_unknown_readiness_is_ready_and_a_pod_is_not(fleet: KubernetesApi) -> None:
    fleet.pods[1].ready = None
    assert from_service("models", "vllm")[1].state == "ready"
    assert from_selector("models", "app=vllm", 8000)[1].state == "not ready"


def test_a_service_of_many_slices_is_read_to_its_end(api: KubernetesApi, tmp_path: Path) -> None:
    api.services = [Service("vllm", {"app": "vllm"}, slice_size=1)]
    api.pods = [Pod(f"vllm-{n}", tmp_path, ip=f"10.0.0.{n}") for n in range(7)]
    names = [f"vllm-{n}" for n in range(7)]
    assert [replica.pod for replica in from_service("models", "vllm")] == names


def test_a_pod_with_an_address_of_each_family_is_one_replica(
    api: KubernetesApi, tmp_path: Path
) -> None:
    api.services = [Service("vllm", {"app": "vllm"})]
    api.pods = [Pod("vllm-0", tmp_path, ip="fd00::1"), Pod("vllm-0", tmp_path, ip="10.0.0.1")]
    (found,) = from_service("models", "vllm")
    assert found.url == "http://10.0.0.1:8000"


def test_a_service_with_several_ports_needs_the_name_of_one(fleet: KubernetesApi) -> None:
    fleet.services[0].ports = {"http": 8000, "metrics": 9000}
    with pytest.raises(LoraAssetsError, match=r"models/vllm.*'http', 'metrics'"):
        from_service("models", "vllm")


def test_an_endpoint_that_is_no_pod_is_refused_by_its_address(fleet: KubernetesApi) -> None:
    fleet.services[0].targets = False
    with pytest.raises(LoraAssetsError, match=r"Endpoint 10\.0\.0\.\d of service models/vllm is"):
        from_service("models", "vllm")


@pytest.mark.usefixtures("fleet")
def test_nothing_found_names_what_was_looked_for() -> None:
    for service in ("other", "missing"):
        with pytest.raises(LoraAssetsError, match=f"no pod behind service models/{service}"):
            from_service("models", service)
    with pytest.raises(LoraAssetsError, match=r"no running pod app=none in namespace models"):
        from_selector("models", "app=none", 8000)


@pytest.mark.parametrize("head", [HEADERS, HEADERS + b"\r\n{"])
def test_an_api_server_that_sends_a_byte_now_and_then_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    monkeypatch.setattr(bounded_calls, "CALL_S", 0.3)
    with trickling(head) as url:
        config = {"clusters": [{"name": "c", "cluster": {"server": url}}], "current-context": "c"}
        config |= {"users": [], "contexts": [{"name": "c", "context": {"cluster": "c"}}]}
        (tmp_path / "kubeconfig").write_text(json.dumps(config))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        for ask in (
            lambda: from_service("models", "vllm"),
            lambda: from_selector("models", "app=vllm", 8000),
            lambda: from_deployment("models", "vllm", 8000),
            lambda: pod_folder("/mnt", "models", "vllm-0", None).contents(),
        ):
            with pytest.raises(LoraAssetsError, match=r"answer \(no whole reply within [01] s\)"):
                ask()


def test_an_api_server_that_is_gone_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with KubernetesApi().serving(tmp_path) as kubeconfig:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    for ask in (
        lambda: from_service("models", "vllm"),
        lambda: from_selector("models", "vllm", 8000),
        lambda: pod_folder("/mnt", "models", "vllm-0", None).contents(),
    ):
        with pytest.raises(LoraAssetsError, match=r"vllm.*: .*does not answer") as caught:
            ask()
        assert "\n" not in str(caught.value)
    assert caplog.messages == []  # Warnings would be printed before that line.
