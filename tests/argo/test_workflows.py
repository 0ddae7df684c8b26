"""The workflows as they stand in argo/."""

import tomllib
from pathlib import Path

import click
import pytest
from hera.workflows import Workflow, WorkflowTemplate

from lora_assets.cli.main import cli
from tests.support.argo_validation import load, problems, templates_of
from tests.support.manifests import code_location

ROOT = Path(__file__).parents[2]
ARGO = ROOT / "argo"
WORKFLOWS = {path.stem: load(path) for path in sorted(ARGO.glob("*.yaml"))}
TEMPLATES = {path.stem: load(path) for path in sorted((ARGO / "templates").glob("*.yaml"))}
STAGES = tuple(sorted(WORKFLOWS.keys() - {"lora-pipeline"}))


def test_the_six_workflows_are_there() -> None:
    assert set(WORKFLOWS) == {
        "train-validate-lora",
        "deploy-lora-adapter",
        "evaluate-lora-adapter",
        "performance-test-lora",
        "promote-lora-adapter",
        "lora-pipeline",
    }


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_has_nothing_that_argo_refuses_or_passes_over(name: str) -> None:
    Workflow.from_file(ARGO / f"{name}.yaml")
    assert problems(WORKFLOWS[name], TEMPLATES) == []


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_template_is_its_workflow(name: str) -> None:
    """`make argo-templates` writes them."""
    WorkflowTemplate.from_file(ARGO / "templates" / f"{name}.yaml")
    template, workflow = TEMPLATES[name], WORKFLOWS[name]
    assert problems(template, TEMPLATES) == []
    assert template["kind"] == "WorkflowTemplate"
    assert template["spec"] == workflow["spec"]
    assert workflow["metadata"] == {"generateName": f"{name}-", "namespace": "ml-models"}
    assert template["metadata"] == {"name": name, "namespace": "ml-models"}


CONTAINERS = tuple(
    (name, template["name"])
    for name, workflow in WORKFLOWS.items()
    for template in workflow["spec"]["templates"]
    if "container" in template
)


@pytest.mark.parametrize(("name", "template"), CONTAINERS)
def test_every_option_is_one_of_its_command(name: str, template: str) -> None:
    container = templates_of(WORKFLOWS[name])[template]["container"]
    program = [*container["command"], *container.get("args", [])]
    name_, command, *options = program[3:] if program[0] == "sh" else program
    assert name_ == "lora-assets"
    with click.Context(cli) as context:
        known = cli.get_command(context, command)
    assert known is not None
    named = {option for parameter in known.params for option in parameter.opts}
    assert {option.partition("=")[0] for option in options} <= named


@pytest.mark.parametrize("name", STAGES)
def test_a_step_is_told_who_asks_and_where_its_outputs_go(name: str) -> None:
    step = templates_of(WORKFLOWS[name])["step"]
    given = {variable["name"]: variable["value"] for variable in step["container"]["env"]}
    assert given["LORA_ASSETS_REQUEST"] == "{{inputs.parameters.request}}"
    assert given["LORA_ASSETS_OUTPUTS"] == "/tmp/outputs"
    paths = [output["valueFrom"]["path"] for output in step["outputs"]["parameters"]]
    assert paths == [f"/tmp/outputs/{output['name']}" for output in step["outputs"]["parameters"]]


@pytest.mark.parametrize(("name", "template"), CONTAINERS)
def test_a_container_is_told_where_dagster_is(name: str, template: str) -> None:
    container = templates_of(WORKFLOWS[name])[template]["container"]
    given = {variable["name"]: variable.get("value") for variable in container["env"]}
    assert given["DAGSTER_URL"] == "http://dagster-webserver.dagster:80"
    assert given["LORA_ASSETS_STACK"] == "cluster"


def test_the_check_has_the_keys_of_the_code_location() -> None:
    container = templates_of(WORKFLOWS["lora-pipeline"])["check"]["container"]
    keys = {v["name"]: v["valueFrom"]["secretKeyRef"] for v in container["env"] if "value" not in v}
    assert set(keys) == {"VLLM_API_KEY", "JUDGE_API_KEY"}
    for variable in code_location()["env"]:
        if variable["name"] in keys:
            secret = variable["valueFrom"]["secretKeyRef"]
            assert {**secret, "optional": True} == keys.pop(variable["name"])
    assert not keys


@pytest.mark.parametrize(("name", "template"), CONTAINERS)
def test_the_image_is_of_this_version(name: str, template: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    image = templates_of(WORKFLOWS[name])[template]["container"]["image"]
    assert image.endswith(f"/vllm-deployment-tools:{version}")
