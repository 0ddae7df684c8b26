"""Each program reads the variables that its container sets, and their values agree."""

import re

import pytest

from lora_assets.records.training import LORA_PROFILES
from lora_assets.serving.plugin_files import MIDDLEWARE
from lora_assets.serving.preflight import MIN_LORAS
from lora_assets.settings import Settings, read_settings
from lora_assets.stack_resources import make_resources
from tests.support.manifests import PODS, WITH_PODS, Object, code_location, find, variables

OF_OTHERS = {
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "HOME"),
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
}
OF_VLLM = {
    *("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "VLLM_API_KEY", "VLLM_NO_USAGE_STATS"),
    *("HF_HOME", "HF_TOKEN", "HOME", "USER", "PYTHONPATH"),
    *("ADAPTERS_DIR", "LORA_ASSETS_ADMIN_KEY"),  # Of our plugin.
}
KNOWN = {str(field.validation_alias) for field in Settings.model_fields.values()}


def ours() -> list[tuple[str, Object]]:
    """Return the containers that run lora-assets."""
    in_pods = [(str(m), c) for m in PODS for c in m.containers if "vllm-depl" in c["image"]]
    return [*in_pods, ("values.yaml", code_location())]


def values(container: Object) -> dict[str, str]:
    """Return the values by name, with an empty one for a variable from a Secret."""
    named = variables(container)
    assert len(named) == len(container["env"])
    return {name: variable.get("value", "") for name, variable in named.items()}


def vllm() -> Object:
    (container,) = find("Deployment", "vllm")["spec"]["template"]["spec"]["containers"]
    return container


@pytest.mark.parametrize(("where", "container"), ours(), ids=lambda each: str(each)[:40])
def test_lora_assets_reads_every_variable_that_it_is_given(where: str, container: Object) -> None:
    assert values(container).keys() <= KNOWN | OF_OTHERS, where
    settings = read_settings(values(container))
    assert settings.stack == "cluster"
    if where.startswith("argo/"):
        assert settings.dagster_url == "http://dagster-webserver.dagster:80"


def test_vllm_reads_every_variable_that_it_is_given() -> None:
    containers = [c for m in WITH_PODS for c in m.containers if c["image"].startswith("vllm/")]
    assert len(containers) == 2  # The fleet's and the judge's.
    for container in containers:
        assert values(container).keys() <= OF_VLLM


def test_the_code_location_has_the_addresses_that_a_cluster_has_by_default() -> None:
    settings = read_settings(values(code_location()))
    defaults = read_settings({"LORA_ASSETS_STACK": "cluster"})
    for name in ("mlflow_tracking_uri", "prometheus_url", "s3_data_bucket", "model_name"):
        assert getattr(settings, name) == getattr(defaults, name)
    assert settings.vllm_url == defaults.vllm_url == "http://vllm-service.ml-models:8000"
    assert settings.judge_url == defaults.judge_url == "http://judge-vllm-service.ml-models:8000"
    assert settings.vllm_container == vllm()["name"]
    fleet = make_resources(settings).fleet
    assert (fleet.deployment, fleet.namespace) == ("vllm", "ml-models")


def test_adapters_and_plugin_are_restored_where_vllm_reads_them() -> None:
    pod = find("Deployment", "vllm")["spec"]["template"]["spec"]
    (restore,) = pod["initContainers"]
    (server,) = pod["containers"]
    folders = {m["name"]: m["mountPath"] for m in server["volumeMounts"]}
    assert values(restore)["ADAPTERS_DIR"] == values(server)["ADAPTERS_DIR"]
    assert values(server)["ADAPTERS_DIR"] == folders["adapters"]
    assert restore["command"][-2:] == ["--plugin-dir", values(server)["PYTHONPATH"]]
    assert values(server)["PYTHONPATH"] == folders["plugin"]
    for name in ("adapters", "plugin"):
        assert {"name": name, "mountPath": folders[name]} in restore["volumeMounts"]


def test_vllm_takes_every_profile_and_as_many_adapters_as_are_served() -> None:
    options = dict(re.findall(r"--([a-z-]+)=(\S+)", " ".join(vllm()["command"])))
    rank = max(profile.rank for profile in LORA_PROFILES.values())
    assert int(options["max-lora-rank"]) == rank
    assert values(code_location())["VLLM_MAX_LORA_RANK"] == options["max-lora-rank"]
    assert values(code_location())["VLLM_MAX_MODEL_LEN"] == options["max-model-len"]
    assert int(options["max-loras"]) == MIN_LORAS
    assert {"--enable-lora", f"--middleware={MIDDLEWARE}"} <= set(vllm()["command"])
    base, _, commit = read_settings({"LORA_ASSETS_STACK": "cluster"}).base_model.partition("@")
    assert vllm()["command"][:3] == ["vllm", "serve", base]
    assert options["revision"] == options["tokenizer-revision"] == commit
    grace = find("Deployment", "vllm")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    before = vllm()["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert before + int(options["shutdown-timeout"]) < grace
