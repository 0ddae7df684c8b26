"""The trial cluster: its objects, workflows and values fit each other, and nothing is missing."""

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
import yaml

from lora_assets.gates.policy import parse_policy
from lora_assets.kubernetes.light_steps import fit_into_run
from lora_assets.kubernetes.step_pods import step_pod
from lora_assets.settings import read_settings
from tests.deploy.test_dagster_values import made_pod
from tests.manifests.test_rendered import rendered
from tests.support.argo_workflows import WORKFLOWS, defaults_of, program
from tests.support.command_lines import PARSERS, parse
from tests.support.doubles.dagster_chart import CHART_VERSION, instance_config, merged, objects
from tests.support.manifests import DEPLOY, REPOSITORY, Manifest, Object, dagster_values, variables

pytestmark = pytest.mark.e2e

TRIAL = DEPLOY / "trial"
OWN = yaml.safe_load((TRIAL / "values.yaml").read_text())
VALUES = merged(dagster_values(), OWN)
RUNS = VALUES["runLauncher"]["config"]["customRunLauncher"]["config"]
UP = (TRIAL / "up.sh").read_text()
VERSION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
IMAGE = f"lora-assets-trial:{VERSION}"


def made(kind: str) -> list[Manifest]:
    return [manifest for manifest in rendered("trial") if manifest.kind == kind]


def workloads() -> list[Manifest]:
    return [manifest for manifest in rendered("trial") if manifest.pod]


def code_location() -> Object:
    (deployment,) = VALUES["dagster-user-deployments"]["deployments"]
    return deployment


@cache
def workflows(folder: str) -> Mapping[str, str]:
    """Return what workflows.sh writes, by file."""
    subprocess.run([TRIAL / "workflows.sh", folder], check=True, stdout=subprocess.DEVNULL)
    written = [*Path(folder).glob("*.yaml"), *Path(folder, "templates").glob("*.yaml")]
    return {str(path.relative_to(folder)): path.read_text() for path in written}


def containers() -> Iterator[tuple[str, Object]]:
    """Yield every container that the trial has for good, with its namespace."""
    for manifest in workloads():
        yield from ((str(manifest.namespace), container) for container in manifest.containers)
    yield "dagster", code_location()


def test_one_image_stands_in_the_place_of_all(tmp_path_factory: pytest.TempPathFactory) -> None:
    images = {container["image"] for pod in workloads() for container in pod.containers}
    images |= {c["image"] for each in objects(VALUES) for c in each.get("containers", ())}
    named = {image.removeprefix("docker.io/").removeprefix("library/") for image in images}
    assert named == {IMAGE, "prom/prometheus:v3.13.2"}
    folder = str(tmp_path_factory.mktemp("workflows"))
    templates = {f"templates/{name}.yaml" for name in WORKFLOWS}
    assert workflows(folder).keys() == {"lora-pipeline.yaml", *templates}
    for text in workflows(folder).values():
        assert re.findall(r"image: (?:&image )?([^*\s]+)", text) == [IMAGE]
    frozen = (REPOSITORY / "tests" / "trial" / "frozen_api.yaml").read_text()
    assert f"image: {IMAGE}\n" in frozen


def test_no_pod_needs_a_gpu_or_a_node_of_its_own(tmp_path: Path) -> None:
    changed = json.loads(variables(code_location())["LORA_ASSETS_STEP_PODS"]["value"])
    tags = step_pod("train")["dagster-k8s/config"]
    training = made_pod(tmp_path, tags, changed["adapter"], values=VALUES)
    for pod in (training, *(manifest.pod_spec for manifest in workloads())):
        assert not pod.get("nodeSelector")
        for container in pod["containers"]:
            assert container["resources"]["limits"].keys() == {"cpu", "memory"}
    (container,) = training["containers"]
    assert container["image"] == IMAGE
    environment = variables(container)
    # What the op's tags and the code location say of it otherwise still holds.
    assert environment["LORA_ASSETS_HOME"]["value"] == "/var/lib/lora-assets"
    assert environment["LORA_ASSETS_STACK"]["value"] == "cluster"
    assert any("persistentVolumeClaim" in volume for volume in training["volumes"])


def millicores(quantity: str) -> int:
    return int(quantity[:-1]) if quantity.endswith("m") else int(quantity) * 1000


def test_everything_fits_on_two_cores_beside_kubernetes_own_pods() -> None:
    of_chart = [VALUES[part]["resources"] for part in ("dagsterWebserver", "dagsterDaemon")]
    always = [code_location()["resources"], *of_chart]
    for manifest in workloads():
        replicas = manifest.content["spec"].get("replicas", 1)
        always += [c["resources"] for c in manifest.pod_spec["containers"]] * replicas
    requests = [millicores(resources["requests"]["cpu"]) for resources in always]
    run = millicores(RUNS["resources"]["requests"]["cpu"])
    changed = json.loads(variables(code_location())["LORA_ASSETS_STEP_PODS"]["value"])
    steps = [each["container_config"]["resources"]["requests"]["cpu"] for each in changed.values()]
    largest_step = max(map(millicores, steps))
    light = [step_pod(name)["dagster-k8s/config"] for name in ("load-adapter", "smoke-test")]
    assert fit_into_run(light, {"container_config": RUNS})
    of_kubernetes = 950  # kind's control plane, CoreDNS and network.
    assert of_kubernetes + sum(requests) + millicores("50m") + run + largest_step < 2000


def test_every_secret_and_claim_that_a_container_reads_is_made() -> None:
    keys = {
        (m.namespace, m.name): set(m.content.get("stringData", {}) or m.content.get("data", {}))
        for m in made("Secret")
    }
    train = step_pod("train")["dagster-k8s/config"]["container_config"]
    for namespace, container in (*containers(), ("dagster", train)):
        for variable in variables(container).values():
            source = variable.get("valueFrom") or variable.get("value_from") or {}
            ref = source.get("secretKeyRef") or source.get("secret_key_ref")
            if ref and (not ref.get("optional") or (namespace, ref["name"]) in keys):
                assert ref["key"] in keys[namespace, ref["name"]]
        for source in container.get("envFrom", ()):
            if not source["secretRef"].get("optional"):
                assert (namespace, source["secretRef"]["name"]) in keys
    database = VALUES["global"]["postgresqlSecretName"]
    assert keys["dagster", database] == {"postgresql-password"}
    claims = {(m.namespace, m.name) for m in made("PersistentVolumeClaim")}
    for manifest in workloads():
        for volume in manifest.pod_spec["volumes"]:
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert (manifest.namespace, claim) in claims


def test_every_service_that_is_asked_is_made_and_selects_a_pod() -> None:
    ports = {
        (m.name, m.namespace): {port["port"] for port in m.content["spec"].get("ports", ())}
        for m in made("Service")
    }
    for each in objects(VALUES):
        if each["kind"] == "Service":
            ports[each["name"], "dagster"] = set(each["ports"].values())
    texts = [path.read_text() for path in (*TRIAL.glob("*.yaml"), *TRIAL.glob("*.sh"))]
    texts.append(defaults_of(WORKFLOWS["lora-pipeline"])["prometheus-url"])
    asked = set(re.findall(r"http://([a-z0-9-]+)\.([a-z0-9-]+):(\d+)", " ".join(texts)))
    assert len(asked) == 3
    for service, namespace, port in asked:
        assert int(port) in ports[service, namespace]
    database = instance_config(VALUES)["run_storage"]["config"]["postgres_db"]
    assert (database["hostname"], database["db_name"]) == ("postgresql", "postgres")
    assert ports["postgresql", "dagster"] == {5432}
    for service in made("Service"):
        if selector := service.content["spec"].get("selector"):
            (workload,) = (
                m
                for m in workloads()
                if m.namespace == service.namespace and selector.items() <= m.pod_labels.items()
            )
            targets = {port["targetPort"] for port in service.content["spec"]["ports"]}
            assert targets <= workload.ports.keys()


def test_prometheus_finds_each_replica_by_a_service_without_an_address(tmp_path: Path) -> None:
    (config,) = (m.content["data"] for m in made("ConfigMap") if m.name == "prometheus")
    ((name, content),) = config.items()
    (tmp_path / name).write_text(content)
    subprocess.run(["promtool", "check", "config", tmp_path / name], check=True)
    (job,) = yaml.safe_load(content)["scrape_configs"]
    (by_dns,) = job["dns_sd_configs"]
    (service,) = (m for m in made("Service") if [f"{m.name}.{m.namespace}"] == by_dns["names"])
    (fleet,) = (m for m in made("Service") if m.name == "vllm-service")
    assert service.content["spec"] == {**fleet.content["spec"], "clusterIP": "None"}
    assert by_dns["port"] == service.content["spec"]["ports"][0]["port"]


def test_the_fleet_lets_the_client_in_and_the_steps_reach_the_bucket() -> None:
    namespaces = {m.name: m.content["metadata"].get("labels", {}) for m in made("Namespace")}
    assert namespaces.keys() == {"ml-models", "dagster", "ai-platform", "s3", "client"}
    assert namespaces["client"] == {"lora-assets/vllm-client": "true"}
    own = [m for m in made("NetworkPolicy") if m.name == "own-s3"]
    assert {m.namespace for m in own} == {"dagster", "ml-models"}
    for policy in own:
        (rule,) = policy.content["spec"]["egress"]
        assert {"kubernetes.io/metadata.name": "s3"} in [
            peer.get("namespaceSelector", {}).get("matchLabels") for peer in rule["to"]
        ]
        assert rule["ports"] == [{"protocol": "TCP", "port": 9000}]


def test_the_code_location_differs_from_the_real_one_only_where_it_must() -> None:
    (real,) = dagster_values()["dagster-user-deployments"]["deployments"]
    differing = {key for key in real if real[key] != code_location()[key]}
    assert real.keys() == code_location().keys()
    assert differing == {"image", "env", "resources", "volumes", "volumeMounts"}
    given = {
        name: variable["value"]
        for name, variable in variables(code_location()).items()
        if "value" in variable
    }
    settings = read_settings({**given, "BASE_MODEL_NAME": "embedded-base"})
    assert settings.prometheus_url == defaults_of(WORKFLOWS["lora-pipeline"])["prometheus-url"]
    assert settings.judge_url.endswith(":8000/judge")
    assert (settings.executor, settings.base_model_name) == ("k8s_job", "embedded-base")
    # The rest are the cluster's defaults, and what only a real one has.
    without = variables(real).keys() - variables(code_location()).keys()
    assert without == {
        *("MODEL_NAME", "S3_DATA_BUCKET", "MLFLOW_TRACKING_URI", "VLLM_URL", "PROMETHEUS_URL"),
        *("VLLM_MAX_LORA_RANK", "VLLM_MAX_MODEL_LEN", "LORA_ASSETS_PROMOTION"),
        *("LORA_ASSETS_WEBHOOK", "LORA_ASSETS_VERDICT_KEY"),
    }
    stated = {name: variables(real)[name].get("value") for name in without}
    assert settings.s3_data_bucket == stated["S3_DATA_BUCKET"]
    assert settings.mlflow_tracking_uri == stated["MLFLOW_TRACKING_URI"]


def test_the_pipeline_has_every_parameter_that_it_is_given() -> None:
    given = yaml.safe_load((TRIAL / "parameters.yaml").read_text())
    assert given.keys() <= defaults_of(WORKFLOWS["lora-pipeline"]).keys()
    assert all(isinstance(value, str) for value in given.values())
    judge = variables(code_location())["JUDGE_URL"]["value"]
    assert given["judge-url"] == judge
    words = [f"--{name}={value}" for name, value in given.items() if value]
    assert parse(["lora-assets", "check", *words]).params["data_version"] == "1"


def test_the_policy_asks_for_the_pipelines_limits_and_is_where_runs_look_for_it() -> None:
    (stated,) = (m.content["data"] for m in made("ConfigMap") if m.name == "policy")
    ((name, content),) = stated.items()
    policy = parse_policy(content.encode())
    given = yaml.safe_load((TRIAL / "parameters.yaml").read_text())
    for limit in policy.model_fields_set - {"training", "digest"}:
        assert float(given[limit.replace("_", "-")]) == getattr(policy, limit), limit
    assert {each.replace("-", "_") for each in given if each.startswith(("min-", "max-p95"))} <= (
        policy.model_fields_set
    )
    (mounted,) = (m["mountPath"] for m in code_location()["volumeMounts"] if m["name"] == "policy")
    assert variables(code_location())["LORA_ASSETS_POLICY"]["value"] == f"{mounted}/{name}"


def test_what_is_waited_for_is_made() -> None:
    waited = re.findall(r"^ready (\S+) (.*)$", UP, re.M)
    assert len(waited) == 6
    of_chart = {each["name"] for each in objects(VALUES) if each["kind"] == "Deployment"}
    made_here = {(m.namespace, m.name) for m in made("Deployment")}
    there = {*made_here, *(("dagster", name) for name in of_chart)}
    assert {(namespace, name) for namespace, names in waited for name in names.split()} == there
    assert f"--version {CHART_VERSION}" in UP


def test_the_commands_are_those_of_the_programs() -> None:
    programs = set()
    for _, container in containers():
        if "command" in container:
            words = program(container)
            programs.add(words[0])
            if words[0] in PARSERS:
                assert parse(words).command is not None
    assert programs == {"lora-assets", "mlflow", "python", "rclone", "sleep", "sh"}


STAND_IN = """#!/bin/sh
echo "$(basename "$0") $*" >> "$CALLS"
case "$*" in
  *current-context*) echo "$CONTEXT" ;;
  *submit*) echo lora-pipeline-x7k2p ;;
  *"get workflow "*) echo "$PHASE" ;;
esac
"""


def up(folder: Path, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Run up.sh with programs that only note how they are called; return these calls."""
    for name in ("kubectl", "helm", "argo", "docker", "kind"):
        (folder / name).write_text(STAND_IN)
        (folder / name).chmod(0o755)
    given = {"PATH": f"{folder}:{os.environ['PATH']}", "VERSION": VERSION, "ENGINE": "docker"}
    given |= {"CALLS": str(folder / "calls"), "CONTEXT": "kind-trial", "PHASE": "Succeeded"}
    # Nothing was saved, but the archive is removed.
    (folder / "docker").write_text(STAND_IN + 'touch "$3"\n')
    command, given = [TRIAL / "up.sh"], {**given, **environment}
    ended = subprocess.run(command, env=given, capture_output=True, text=True, check=False)
    return ended, (folder / "calls").read_text().splitlines()


@pytest.mark.parametrize(
    ("environment", "said", "last"),
    [
        ({"PHASE": "Failed"}, "lora-pipeline-x7k2p ended as Failed", "-n ml-models get workflow"),
        ({"CONTEXT": "mine", "TRIAL_CONTEXT": "mine"}, "TRIAL_LOAD=", "get crd workflows"),
        ({"CONTEXT": "mine"}, "TRIAL_CONTEXT=mine", "config current-context"),
        ({"HELM": "no-such-helm"}, "no-such-helm is missing", "config current-context"),
    ],
)
def test_what_stops_it_is_said_and_nothing_follows(
    tmp_path: Path, environment: Mapping[str, str], said: str, last: str
) -> None:
    ended, calls = up(tmp_path, **environment)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert calls[-1].startswith(f"kubectl {last}")


def test_the_image_is_loaded_before_anything_needs_it_and_live_is_asked_last(
    tmp_path: Path,
) -> None:
    ended, calls = up(tmp_path)
    assert ended.returncode == 0, ended.stderr
    order = (
        f"docker save --output .* {IMAGE}",
        "kind load image-archive --name trial ",
        "kubectl apply -k deploy/trial",
        "kubectl -n dagster rollout status deploy/postgresql --timeout 600s",
        f"helm upgrade --install dagster dagster/dagster --version {CHART_VERSION} ",
        "kubectl -n ml-models rollout status deploy/vllm --timeout 600s",
        "kubectl apply -f .*/templates",
        "kubectl -n client exec .* lora-assets data build --data-version 1",
        "argo -n ml-models submit .*/lora-pipeline.yaml ",
        "kubectl -n ml-models get workflow lora-pipeline-x7k2p ",
        "kubectl -n client exec -i deploy/client -- python -",
    )
    found = [next(i for i, call in enumerate(calls) if re.match(each, call)) for each in order]
    assert found == sorted(found)
    assert found[-1] == len(calls) - 1


def test_an_own_command_loads_the_image_and_an_own_chart_is_taken(tmp_path: Path) -> None:
    own = {"CONTEXT": "mine", "TRIAL_CONTEXT": "mine", "TRIAL_LOAD": "kind import it"}
    ended, calls = up(tmp_path, **own, CHART="/charts/dagster")
    assert ended.returncode == 0, ended.stderr
    assert any(re.match("kind import it /.*image.tar", call) for call in calls)
    assert calls[-1] == "kubectl -n client exec -i deploy/client -- python -"
    assert any(re.match("helm upgrade --install dagster /charts/dagster -", call) for call in calls)
    assert not any(call.startswith("helm repo") for call in calls)
