"""The parameters that say where something is: in the settings, the resources and a run."""

from typing import Any

import pytest

from lora_assets.cli.stack import OPTIONS, Stack, resource_config, with_fleet
from lora_assets.errors import LoraAssetsError
from lora_assets.settings import SETTINGS, read_settings
from lora_assets.stack_resources import make_resources

SLOTS = ("live_slot", "candidate_slot", "others_slots")


@pytest.mark.parametrize("name", OPTIONS)
def test_a_parameter_gives_exactly_the_fields_that_a_run_is_told(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No database of MLflow is made here.
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_UI_URL"):
        monkeypatch.setenv(variable, "http://mlflow")
    monkeypatch.setenv("VLLM_DEPLOYMENT", "vllm")
    before = vars(make_resources(read_settings()))
    after = vars(Stack({name: "elsewhere"}).resources)
    changed = {
        f"{resource}.{field}"
        for resource, client in after.items()
        for field, value in dict(client).items()
        if value != dict(before[resource])[field]
    }
    gives = set(SETTINGS[OPTIONS[name]].gives)
    meant = {
        "vllm_url": gives | {"fleet.deployment"},
        # Slots follow the model; which one is the deployment's own does not change.
        "model_name": {"registry.model_name", *(f"fleet.{slot}" for slot in SLOTS)},
    }
    assert changed == meant.get(name, gives)


@pytest.mark.parametrize("variable", ["MLFLOW_TRACKING_URI", "ADAPTERS_DIR"])
def test_an_empty_place_is_refused_and_is_not_the_working_directory(variable: str) -> None:
    with pytest.raises(LoraAssetsError, match=f"^{variable} is not possible"):
        make_resources(read_settings({variable: ""}))


def test_a_run_is_told_every_field_of_a_resource_that_changes_and_of_no_other() -> None:
    configured: dict[str, dict[str, Any]] = {
        "fleet": {"vllm_url": "http://a", "adapters_dir": "/a", "api_key": {"env": "VLLM_API_KEY"}},
        "registry": {"tracking_uri": "http://mlflow", "model_name": "m"},
        "tracking": {"tracking_uri": "http://mlflow", "artifacts": ""},
    }
    given = {"vllm_url": "http://b", "model_name": "n", "mlflow_tracking_uri": "http://mlflow"}
    assert resource_config(given, configured) == {
        "fleet": {"config": {**configured["fleet"], "vllm_url": "http://b", "api_key": ""}}
    }
    same = {**given, "vllm_url": "http://A:80/"}
    fleet = resource_config(same, configured)["fleet"]["config"]
    assert fleet == {**configured["fleet"], "vllm_url": "http://A:80/"}
    assert resource_config({}, configured) == {}
    # A field that stands at its default can be given.
    assert resource_config({"deployment": "vllm"}, {"fleet": {"vllm_url": "http://a"}}) == {
        "fleet": {"config": {"vllm_url": "http://a", "deployment": "vllm"}}
    }
    url = {"judge_url": "http://judge"}
    assert resource_config({"judge_model": ""}, {"judge": {**url, "judge_model": "llama"}}) == {
        "judge": {"config": {**url, "judge_model": ""}}
    }
    assert resource_config({"judge_model": ""}, {"judge": url}) == {}


PODS = {"vllm_url": "http://live", "deployment": "vllm", "namespace": "prod"}


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        # As Argo gives them, whether or not anybody chose them.
        (PODS, PODS),
        ({"vllm_url": "http://live/"}, {"vllm_url": "http://live/"}),
        ({"vllm_url": "http://staging"}, {"vllm_url": "http://staging", "deployment": ""}),
        (
            {**PODS, "vllm_url": "http://staging"},
            {**PODS, "vllm_url": "http://staging", "deployment": ""},
        ),
        *(
            (others, others)
            for others in (
                {"vllm_url": "http://staging", "deployment": "staging"},
                {"vllm_url": "http://staging", "namespace": "staging"},
                {"namespace": "staging"},
            )
        ),
    ],
)
def test_another_url_alone_is_the_fleet(given: dict[str, str], meant: dict[str, str]) -> None:
    assert with_fleet(given, PODS) == meant


@pytest.mark.parametrize(
    ("given", "configured", "cause"),
    [
        *(
            ({option: "other"}, {**PODS, field: "these"}, f"--{option.replace('_', '-')} other .*")
            for option in PODS
            for field in ("service", "pod_selector", "replica_urls")
        ),
        ({"vllm_url": "u"}, {"service": "a/b"}, r"the fleet that VLLM_SERVICE names \(a/b\)"),
        (
            {"namespace": "staging"},
            {"vllm_url": "http://live"},
            "--namespace staging needs --deployment",
        ),
    ],
)
def test_an_option_that_would_change_nothing_is_refused_by_name(
    given: dict[str, str], configured: dict[str, str], cause: str
) -> None:
    with pytest.raises(LoraAssetsError, match=cause):
        with_fleet(given, configured)


@pytest.mark.parametrize(
    ("url", "gets_the_key"),
    [
        *(("http://vllm:8000", True), ("http://VLLM:8000/", True), ("https://vllm:8000", False)),
        *(("http://vllm:8001", False), ("http://vllm", False), ("http://attacker:8000", False)),
        *(("http://vllm:8000@attacker", False), ("http://vllm:8000.attacker", False)),
    ],
)
def test_a_key_goes_to_the_origin_that_it_was_configured_for_and_to_no_other(
    url: str, gets_the_key: bool, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    keys = {"VLLM_API_KEY": "a", "LORA_ASSETS_ADMIN_KEY": "b", "JUDGE_API_KEY": "c"}
    places = {"MLFLOW_TRACKING_URI": "http://mlflow", "MLFLOW_UI_URL": "http://mlflow"}
    urls = {"VLLM_URL": "http://vllm:8000", "JUDGE_URL": "http://vllm:8000"}
    for variable, value in {**keys, **places, **urls}.items():
        monkeypatch.setenv(variable, value)
    resources = Stack({"vllm_url": url, "judge_url": url}).resources
    given = resources.fleet.api_key, resources.fleet.admin_key, resources.judge.api_key
    assert given == (("a", "b", "c") if gets_the_key else ("", "", ""))
    said = capsys.readouterr().err
    assert all((f"{variable} is not sent" in said) != gets_the_key for variable in keys)
