"""Each check of the validation catches what it is there for."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.argo_validation import problems
from tests.support.argo_workflows import ARGO, TEMPLATES, load

Change = Callable[[dict[str, Any]], object]


def _spec(workflow: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = workflow["spec"]
    return spec


def _entry(workflow: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = workflow["spec"]["templates"][0]
    return entry


def _step(workflow: dict[str, Any]) -> dict[str, Any]:
    step: dict[str, Any] = workflow["spec"]["templates"][1]
    return step


def _gate(workflow: dict[str, Any]) -> dict[str, Any]:
    gate: dict[str, Any] = _entry(workflow)["steps"][2][0]
    return gate


def _given(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    given: list[dict[str, Any]] = _entry(workflow)["steps"][0][0]["arguments"]["parameters"]
    return given


BROKEN: dict[str, tuple[Change, str]] = {
    "an unknown field": (
        lambda w: _step(w)["container"].update(comand=["x"]),
        "spec.templates.1.container.comand: Extra inputs are not permitted",
    ),
    "no entrypoint": (
        lambda w: _spec(w).update(entrypoint="nowhere"),
        "entrypoint nowhere is no template",
    ),
    "a missing template": (
        lambda w: _gate(w).update(template="nowhere"),
        "step quality-gate calls a template that is not there",
    ),
    "a missing workflow template": (
        lambda w: [
            _gate(w).pop("template"),
            _gate(w).update(templateRef={"name": "nowhere", "template": "step"}),
        ],
        "step quality-gate calls a template that is not there",
    ),
    "a template without an end": (
        lambda w: _gate(w).update(template="train-validate-lora"),
        "step quality-gate calls its own template, without an end",
    ),
    "an argument that the entrypoint does not take": (
        lambda w: _spec(w)["arguments"]["parameters"].append({"name": "x", "value": "1"}),
        "the entrypoint's inputs are not the workflow's arguments",
    ),
    "a misspelt parameter": (
        lambda w: _given(w)[0].update(value="{{inputs.parameters.data-versoin}}"),
        "nothing gives {{inputs.parameters.data-versoin}}",
    ),
    "a parameter that is not passed on": (
        lambda w: _given(w).pop(0),
        "step download-data lacks parameter request of step",
    ),
    "a parameter passed on to nobody": (
        lambda w: _given(w).append({"name": "x", "value": "1"}),
        "step download-data gives parameter x, which step does not take",
    ),
    "a parameter that is passed on twice": (
        lambda w: _given(w).append(_given(w)[0]),
        "step download-data gives parameter request twice",
    ),
    "a parameter that no option has": (
        lambda w: _step(w)["container"]["args"].pop(4),
        "nothing reads parameter data-version",
    ),
    "a parameter that is there twice": (
        lambda w: _step(w)["inputs"]["parameters"].append({"name": "data-version"}),
        "parameter data-version is there twice",
    ),
    "an output of a later step": (
        lambda w: _given(w)[0].update(value="{{steps.train.outputs.parameters.run-id}}"),
        "nothing gives {{steps.train.outputs.parameters.run-id}}",
    ),
    "an output of a step at the same time": (
        lambda w: _entry(w)["steps"][1].append(
            {
                "name": "beside",
                "template": "step",
                "when": "{{steps.train.outputs.parameters.result}}",
            }
        ),
        "nothing gives {{steps.train.outputs.parameters.result}}",
    ),
    "an output that no step has": (
        lambda w: _gate(w).update(when="{{steps.train.outputs.parameters.reslut}} == passed"),
        "nothing gives {{steps.train.outputs.parameters.reslut}}",
    ),
    "retries of everything": (
        lambda w: _step(w)["retryStrategy"].pop("expression"),
        "retries are not for asInt(lastRetry.exitCode) == 75 alone",
    ),
    "retries of pods that were told to stop": (
        lambda w: _step(w)["retryStrategy"].update(retryPolicy="Always"),
        "retryPolicy is not OnFailure: a lost pod was told to stop, and so was its run",
    ),
    "retries of the exit handler": (
        lambda w: _spec(w)["templates"][3].update(retryStrategy=_step(w)["retryStrategy"]),
        "retries of the exit handler never come once the workflow was stopped",
    ),
    "no exit handler": (
        lambda w: _spec(w).pop("onExit"),
        "onExit is no template, so that a stop between two attempts leaves a run behind",
    ),
    "retries without a limit": (
        lambda w: _step(w)["retryStrategy"].pop("limit"),
        "retries have no limit",
    ),
    "retries at once": (
        lambda w: _step(w)["retryStrategy"].pop("backoff"),
        "retries don't wait",
    ),
    "retries that a long run outlasts": (
        lambda w: _step(w)["retryStrategy"]["backoff"].update(maxDuration="10m"),
        "backoff.maxDuration counts from the first attempt's start, so long runs get no retry",
    ),
    "no deadline": (
        lambda w: _spec(w).pop("activeDeadlineSeconds"),
        "spec has no activeDeadlineSeconds",
    ),
    "no deadline of the step's own": (
        lambda w: _step(w).pop("activeDeadlineSeconds"),
        "has no activeDeadlineSeconds of its own, which a templateRef would not bring along",
    ),
    "an output on the read-only root": (
        lambda w: _step(w)["outputs"]["parameters"][0]["valueFrom"].update(path="/out/run-id"),
        "output run-id can't be written to /out/run-id",
    ),
    "no user for Argo's own containers": (
        lambda w: _step(w)["securityContext"].pop("runAsUser"),
        "has no runAsUser for the pod, so that Argo's own containers run as root",
    ),
    "a secret as a parameter": (
        lambda w: _step(w)["inputs"]["parameters"].append({"name": "hf-token"}),
        "parameter hf-token is a secret that anyone could read",
    ),
    "a secret in the environment": (
        lambda w: _step(w)["container"]["env"].append({"name": "VLLM_API_KEY", "value": "x"}),
        "variable VLLM_API_KEY has a secret as its plain value",
    ),
    "a shell that keeps the signal": (
        lambda w: _step(w)["container"]["args"].__setitem__(0, 'lora-assets "$@"'),
        "the shell stays in front of lora-assets and gets its SIGTERM",
    ),
    "a parameter as shell": (
        lambda w: _step(w)["container"]["args"].__setitem__(
            0, "exec lora-assets train --data-version {{inputs.parameters.data-version}}"
        ),
        "a parameter would be read as shell",
    ),
    "a number as a value": (
        lambda w: _spec(w)["arguments"]["parameters"][0].update(value=1),
        "spec.arguments.parameters.0.value: Input should be a valid string",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_workflow_is_caught(fault: str) -> None:
    change, problem = BROKEN[fault]
    workflow = load(ARGO / "train-validate-lora.yaml")
    assert problems(workflow, TEMPLATES) == []
    change(workflow)
    found = problems(workflow, TEMPLATES)
    assert any(line.endswith(problem) for line in found), found
