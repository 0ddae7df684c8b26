"""The workflows of argo/: facts that running them on the double does not show."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hera.workflows import Workflow, WorkflowTemplate, models

from tests.support.argo_workflows import (
    ARGO,
    TEMPLATES,
    WORKFLOWS,
    load,
    program,
    references,
    templates_of,
)
from tests.support.manifests import code_location, variables

SECRET = re.compile(r"secret|token(?!s)|password|api[-_]?key", re.IGNORECASE)
CONTAINERS = tuple(
    pytest.param(template, id=f"{name} {template['name']}")
    for name, workflow in WORKFLOWS.items()
    for template in workflow["spec"]["templates"]
    if "container" in template
)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_argo_knows_every_field_of_a_workflow(name: str) -> None:
    Workflow.from_file(ARGO / f"{name}.yaml")
    models.Workflow.model_validate(WORKFLOWS[name], extra="forbid")
    assert WORKFLOWS[name]["metadata"]["generateName"] == f"{name}-"


@pytest.mark.integration
def test_make_writes_each_workflow_as_a_template(tmp_path: Path) -> None:
    command = ["make", "--silent", "argo-templates", f"ARGO_TEMPLATES={tmp_path}"]
    subprocess.run(command, cwd=ARGO.parent, check=True)
    assert {path.stem: load(path) for path in tmp_path.iterdir()} == TEMPLATES
    for path in tmp_path.iterdir():
        WorkflowTemplate.from_file(path)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_ends_in_time_and_is_cleaned_up(name: str) -> None:
    spec = WORKFLOWS[name]["spec"]
    assert spec["activeDeadlineSeconds"] > 0
    assert spec["ttlStrategy"] == {"secondsAfterCompletion": 604800}
    assert spec["podGC"] == {"strategy": "OnWorkflowSuccess"}
    assert "container" not in templates_of(WORKFLOWS[name])[spec["onExit"]]


@pytest.mark.parametrize("template", CONTAINERS)
def test_only_a_lost_connection_is_retried_and_never_by_the_exit_handler(
    template: Mapping[str, Any],
) -> None:
    # Of its own: a templateRef brings neither along from the workflow.
    assert template["activeDeadlineSeconds"] > 0
    assert template["serviceAccountName"] == "workflow-sa"
    if template["name"] == "terminate":
        # Argo starts no second attempt in a workflow that was stopped.
        assert "retryStrategy" not in template
        return
    assert template["retryStrategy"] == {
        "limit": "8",
        # Not Always: a lost pod was told to stop, and so was its run.
        "retryPolicy": "OnFailure",
        "expression": "asInt(lastRetry.exitCode) == 75",
        # No maxDuration: it counts from the first attempt's start, so long runs get no retry.
        "backoff": {"duration": "15s", "factor": "2"},
    }


@pytest.mark.parametrize("template", CONTAINERS)
def test_no_parameter_is_a_secret_or_read_by_the_shell(template: Mapping[str, Any]) -> None:
    for parameter in template.get("inputs", {}).get("parameters", ()):
        assert not SECRET.search(parameter["name"])
    for variable in template["container"]["env"]:
        assert "value" not in variable or not SECRET.search(variable["name"])
    words = [*template["container"]["command"], *template["container"].get("args", ())]
    assert not references(words[: len(words) - len(program(template["container"]))])


def test_the_check_has_the_keys_of_the_code_location() -> None:
    container = templates_of(WORKFLOWS["lora-pipeline"])["check"]["container"]
    keys = {v["name"]: v["valueFrom"]["secretKeyRef"] for v in container["env"] if "value" not in v}
    assert set(keys) == {"VLLM_API_KEY", "JUDGE_API_KEY"}
    given = variables(code_location())
    for name, key in keys.items():
        assert key == {**given[name]["valueFrom"]["secretKeyRef"], "optional": True}
