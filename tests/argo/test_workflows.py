"""The workflows of argo/ are ones that Argo runs, by themselves and by reference."""

import subprocess
from pathlib import Path

import pytest
from hera.workflows import Workflow, WorkflowTemplate

from tests.support.argo_validation import problems
from tests.support.argo_workflows import (
    ARGO,
    STAGES,
    TEMPLATES,
    WORKFLOWS,
    load,
    templates_of,
)
from tests.support.manifests import code_location


@pytest.mark.parametrize("name", WORKFLOWS)
def test_argo_refuses_and_ignores_nothing_in_a_workflow(name: str) -> None:
    Workflow.from_file(ARGO / f"{name}.yaml")
    assert problems(WORKFLOWS[name], TEMPLATES) == []
    assert WORKFLOWS[name]["metadata"]["generateName"] == f"{name}-"


def test_make_writes_each_workflow_as_a_template(tmp_path: Path) -> None:
    command = ["make", "--silent", "argo-templates", f"ARGO_TEMPLATES={tmp_path}"]
    subprocess.run(command, cwd=ARGO.parent, check=True)
    assert {path.stem: load(path) for path in tmp_path.iterdir()} == TEMPLATES
    for path in tmp_path.iterdir():
        WorkflowTemplate.from_file(path)


@pytest.mark.parametrize("name", STAGES)
def test_a_step_knows_its_request_and_where_to_write_its_outputs(name: str) -> None:
    step = templates_of(WORKFLOWS[name])["step"]
    given = {variable["name"]: variable["value"] for variable in step["container"]["env"]}
    assert given["LORA_ASSETS_REQUEST"] == "{{inputs.parameters.request}}"
    assert given["LORA_ASSETS_OUTPUTS"] == "/tmp/outputs"
    paths = [output["valueFrom"]["path"] for output in step["outputs"]["parameters"]]
    assert paths == [f"/tmp/outputs/{output['name']}" for output in step["outputs"]["parameters"]]


def test_the_check_has_the_keys_of_the_code_location() -> None:
    container = templates_of(WORKFLOWS["lora-pipeline"])["check"]["container"]
    keys = {v["name"]: v["valueFrom"]["secretKeyRef"] for v in container["env"] if "value" not in v}
    assert set(keys) == {"VLLM_API_KEY", "JUDGE_API_KEY"}
    for variable in code_location()["env"]:
        if variable["name"] in keys:
            secret = variable["valueFrom"]["secretKeyRef"]
            assert {**secret, "optional": True} == keys.pop(variable["name"])
    assert not keys
