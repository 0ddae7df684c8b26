"""Dagster and Kubernetes accept what its chart makes of our values."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster import DagsterRun
from dagster._config import process_config, resolve_to_config_type
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster._serdes import class_from_code_pointer
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import UserDefinedDagsterK8sConfig, construct_dagster_k8s_job
from kubernetes.client import ApiClient

from lora_assets.cli.stage_run import REQUEST_TAG
from lora_assets.kubernetes.step_pods import step_pod
from tests.support.doubles.dagster_chart import instance_config, merged, objects
from tests.support.doubles.kubernetes_api import KubernetesApi
from tests.support.kubernetes_cluster import HOME, TRAINING_CLAIM
from tests.support.manifests import (
    DATA,
    DEPLOY,
    REFUSED,
    REPOSITORY,
    code_location,
    dagster_values,
    find,
    validate,
    variables,
)

EXISTING = yaml.safe_load((DEPLOY / "dagster" / "values-existing-postgresql.yaml").read_text())
STORAGES = ("schedule_storage", "run_storage", "event_log_storage")


@contextmanager
def instance(made: Mapping[str, Any], folder: Path) -> Iterator[dg.DagsterInstance]:
    """Start Dagster's instance of that dagster.yaml, without its database and the cluster."""
    with KubernetesApi().serving(folder) as kubeconfig:
        outside = {"load_incluster_config": False, "kubeconfig_file": str(kubeconfig)}
        kept = {key: value for key, value in made.items() if key not in STORAGES}
        here = merged(kept, {"run_launcher": {"config": outside}})
        (folder / "dagster.yaml").write_text(yaml.safe_dump(here))
        with dg.DagsterInstance.from_config(str(folder)) as started:
            yield started


@pytest.mark.parametrize(
    "values", [dagster_values(), merged(dagster_values(), EXISTING)], ids=["own", "existing"]
)
def test_dagster_starts_with_the_instance_that_the_values_make(
    values: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = instance_config(values)
    with instance(made, tmp_path) as started:
        assert isinstance(started.run_launcher, K8sRunLauncher)
        assert isinstance(started.run_coordinator, QueuedRunCoordinator)
        concurrency = started.get_concurrency_config()
        assert concurrency.pool_config.default_pool_limit == 1
        (limit,) = concurrency.run_queue_config.tag_concurrency_limits
        assert limit["key"] == REQUEST_TAG
        assert started.run_monitoring_max_resume_run_attempts > 0
    monkeypatch.setenv("DAGSTER_PG_PASSWORD", "secret")
    for part in STORAGES:
        kind: Any = class_from_code_pointer(made[part]["module"], made[part]["class"])
        config = process_config(resolve_to_config_type(kind.config_type()), made[part]["config"])
        assert config.success, config.errors
        assert config.value
        assert config.value["postgres_db"]["scheme"] == "postgresql+psycopg2"


def test_a_value_that_the_chart_does_not_read_is_refused() -> None:
    with pytest.raises(AssertionError, match="runMonitoring"):
        instance_config({**dagster_values(), "runMonitoring": {"enabled": True}})


def test_the_chart_adds_no_account_and_no_rights_to_ours() -> None:
    """The chart and its subchart have a switch each, which is on by default."""
    values = dagster_values()
    for part in (values, values["dagster-user-deployments"]):
        assert part["serviceAccount"]["create"] is False
        assert part["rbacEnabled"] is False


@pytest.mark.parametrize("part", ["dagsterWebserver", "dagsterDaemon"])
def test_the_charts_own_pods_are_confined_as_the_code_location_is(part: str) -> None:
    own, code = dagster_values()[part], code_location()
    assert own["podSecurityContext"].items() >= code["podSecurityContext"].items()
    for each in ("securityContext", "volumes", "volumeMounts"):
        assert own[each] == code[each]


def test_the_webserver_may_listen_on_its_port_without_root() -> None:
    web = dagster_values()["dagsterWebserver"]
    assert web["service"]["port"] < 1024
    (allowed,) = web["podSecurityContext"]["sysctls"]
    assert allowed == {"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}


def test_pools_and_queue_are_those_of_the_embedded_stack() -> None:
    text = (REPOSITORY / "lora_assets" / "local" / "dagster.yaml").read_text()
    embedded, made = yaml.safe_load(text), instance_config(dagster_values())
    del embedded["concurrency"]["runs"]["max_concurrent_runs"]  # What one machine can bear.
    assert made["concurrency"] == embedded["concurrency"]
    assert made["run_coordinator"]["config"].items() >= embedded["run_queue"].items()
    assert made["run_monitoring"].items() >= embedded["run_monitoring"].items()


def test_a_run_that_a_gate_stopped_is_not_started_again() -> None:
    made = instance_config(dagster_values())
    assert made["run_retries"]["retry_on_asset_or_op_failure"] is False
    assert made["run_retries"]["max_retries"] > 0


def made_pod(
    folder: Path, *step: Mapping[str, Any], values: Mapping[str, Any] | None = None, tag: str = "{}"
) -> Mapping[str, Any]:
    """Make the Job of a run, or of a step with these configurations, and return its pod."""
    with instance(instance_config(values or dagster_values()), folder) as started:
        launcher = started.run_launcher
    assert isinstance(launcher, K8sRunLauncher)
    run = DagsterRun(job_name="train", tags={"dagster-k8s/config": tag})
    context = launcher.get_container_context_for_run(run)
    assert context.namespace == "dagster"
    for part in step:
        of_step = UserDefinedDagsterK8sConfig.from_dict(part)
        context = context.merge(K8sContainerContext(run_k8s_config=of_step))
    made = construct_dagster_k8s_job(
        context.get_k8s_job_config("image", launcher),
        args=["dagster", "api", "execute_run"],
        job_name="dagster-run-1",
        user_defined_k8s_config=context.run_k8s_config,
    )
    job: Mapping[str, Any] = ApiClient().sanitize_for_serialization(made)
    validate(job)
    assert job["spec"]["backoffLimit"] == 0
    return job["spec"]["template"]["spec"]


def test_a_run_is_confined_and_has_the_code_locations_account_and_environment(
    tmp_path: Path,
) -> None:
    more = {"limits": {"memory": "2Gi"}}
    pod = made_pod(tmp_path, tag=json.dumps({"container_config": {"resources": more}}))
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"cpu": "500m", "memory": "2Gi"}
    assert pod["serviceAccountName"] == "lora-assets"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == code_location()["securityContext"]
    assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]
    environment = variables(container)
    assert environment["LORA_ASSETS_STACK"]["value"] == "cluster"
    key = environment["VLLM_API_KEY"]["valueFrom"]["secretKeyRef"]
    assert key == {"name": "vllm-api-key", "key": "VLLM_API_KEY"}
    password = environment["DAGSTER_PG_PASSWORD"]["valueFrom"]["secretKeyRef"]
    assert password == {"name": "dagster-postgresql-secret", "key": "postgresql-password"}


@pytest.mark.parametrize("config", REFUSED["pods"], ids=str)
def test_a_runs_tag_starts_no_other_code_and_gets_no_other_rights(
    config: Mapping[str, Any], tmp_path: Path
) -> None:
    field = ".".join((*config, *next(iter(config.values()))))
    with pytest.raises(Exception, match=f"violated the allowed list: {field}$"):
        made_pod(tmp_path, tag=json.dumps(config))


def test_a_training_keeps_its_checkpoints_and_its_model_on_its_claim(tmp_path: Path) -> None:
    """Merged as the executor merges: location, the step's tags, LORA_ASSETS_STEP_PODS."""
    changed = json.loads(variables(code_location())["LORA_ASSETS_STEP_PODS"]["value"])
    tags = step_pod("train")["dagster-k8s/config"]
    pod = made_pod(tmp_path, tags, changed["adapter"])
    (container,) = pod["containers"]
    environment = variables(container)
    assert environment["LORA_ASSETS_HOME"]["value"] == HOME
    assert environment["HF_HOME"]["value"].startswith(f"{HOME}/")
    assert environment["HF_TOKEN"]["valueFrom"]["secretKeyRef"]["name"] == "hf-token"
    assert environment["LORA_ASSETS_STACK"]["value"] == "cluster"
    assert container["image"].endswith("/vllm-training-tools:0.1.0")
    assert container["resources"] == tags["container_config"]["resources"]
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes[mounted[HOME]]["persistentVolumeClaim"] == {"claimName": TRAINING_CLAIM}
    assert volumes[mounted["/dev/shm"]]["emptyDir"] == {"medium": "Memory"}
    assert "/tmp" in mounted
    assert pod["nodeSelector"] == {"workload": "gpu-training"}
    assert pod["serviceAccountName"] == "lora-assets-training"
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsUser"] == 1000
    assert pod["securityContext"]["runAsNonRoot"] is True


def test_a_deployment_adds_to_a_steps_pod_or_replaces_a_part_of_it(tmp_path: Path) -> None:
    tags, other = step_pod("train")["dagster-k8s/config"], {"key": "l40", "operator": "Exists"}
    own = made_pod(tmp_path, tags)
    nodes = {"node_selector": {"workload": "gpu-l40"}, "tolerations": [other]}
    added = made_pod(tmp_path, tags, {"pod_spec_config": nodes})
    assert added["nodeSelector"] == {"workload": "gpu-l40"}
    assert added["tolerations"] == [*own["tolerations"], other]
    shallow = {"pod_spec_config": {"tolerations": [other]}, "merge_behavior": "SHALLOW"}
    replaced = made_pod(tmp_path, tags, shallow)
    assert replaced["tolerations"] == [other]
    for part in ("nodeSelector", "volumes", "containers"):
        assert replaced[part] == own[part]


def test_the_database_may_be_reached_where_it_is_an_existing_one() -> None:
    (rule,) = find("NetworkPolicy", "existing-postgresql")["spec"]["egress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": EXISTING["postgresql"]["service"]["port"]}]


def test_the_double_names_and_labels_objects_as_the_real_chart_does() -> None:
    """Compared with what Helm 3 rendered from the chart, with the values of that time."""
    facts = json.loads((DATA / "chart-objects.json").read_text())["objects"]
    arguments = {"dagsterApiGrpcArgs": ["--python-module", "lora_assets.definitions"]}
    changed = {
        "dagsterWebserver": {"nameOverride": "dagster-webserver", "enableReadOnly": False},
        "dagster-user-deployments": {"deployments": [{**code_location(), **arguments}]},
    }
    made = objects(merged(dagster_values(), changed), "1.12.19")
    assert by_name(made) == by_name(facts)


def by_name(made: Sequence[Mapping[str, Any]]) -> Mapping[tuple[str, str], Mapping[str, Any]]:
    return {(each["kind"], each["name"]): each for each in made}
