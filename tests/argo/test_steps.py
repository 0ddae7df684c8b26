"""Run the workflows of argo/ by a double of Argo's controller.

Their steps call a stand-in for lora-assets that records its arguments and exits as planned.
"""

import json
import os
import stat
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.argo_workflows import STAGES, TEMPLATES, WORKFLOWS, defaults_of, templates_of
from tests.support.doubles.argo_controller import ArgoWorkflow

pytestmark = pytest.mark.integration

STAND_IN = """
    import json, os, pathlib, signal, sys
    folder = pathlib.Path(os.environ["STAND_IN"])
    stage, step, *_ = *sys.argv[1:], ""
    step = step.removeprefix("--step=") if step.startswith("--step=") else stage
    plan = json.loads((folder / "plan.json").read_text()).get(f"{stage} {step}", {})
    request = os.environ.get("LORA_ASSETS_REQUEST")
    workflow = os.environ.get("LORA_ASSETS_ARGO_WORKFLOW")
    with (folder / "calls").open("a") as calls:
        call = {"argv": sys.argv[1:], "step": step, "request": request, "workflow": workflow}
        calls.write(json.dumps(call) + "\\n")
    outputs = pathlib.Path(os.environ.get("LORA_ASSETS_OUTPUTS", "outputs"))
    outputs.mkdir(parents=True)
    for name, value in plan.get("outputs", {}).items():
        (outputs / name).write_text(value)
    if plan.get("wait"):
        def stop(*_):
            (folder / "stopped").touch()
            sys.exit(plan["wait"])
        signal.signal(signal.SIGTERM, stop)
        (folder / "ready").write_text(str(os.getpid()))
        signal.pause()
    codes = plan.get("exit_codes", [0])
    attempts = folder / f"attempts-{stage}-{step}"
    number = int(attempts.read_text()) if attempts.exists() else 0
    attempts.write_text(str(number + 1))
    sys.exit(codes[min(number, len(codes) - 1)])
"""

PASSED = {"outputs": {"result": "passed", "run-id": "r1", "model-version": "7", "digest": "d"}}


class StandIn:
    """A folder on the PATH with a `lora-assets` that plays a plan."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = folder / "lora-assets"
        command.write_text(f"#!{sys.executable}\n{textwrap.dedent(STAND_IN)}")
        command.chmod(command.stat().st_mode | stat.S_IXUSR)
        os.mkfifo(folder / "ready")

    def workflow(self, name: str, plan: Mapping[str, Any]) -> ArgoWorkflow:
        (self.folder / "plan.json").write_text(json.dumps(plan))
        environment = {"PATH": f"{self.folder}:/usr/bin:/bin", "STAND_IN": str(self.folder)}
        return ArgoWorkflow(WORKFLOWS[name], TEMPLATES, environment, self.folder)

    @property
    def calls(self) -> Sequence[Mapping[str, Any]]:
        path = self.folder / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    @property
    def steps(self) -> list[str]:
        return [call["step"] for call in self.calls]


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    return StandIn(tmp_path)


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("of", ["the defaults", "a submit"])
def test_every_step_gets_every_parameter_but_an_empty_one(
    name: str, of: str, stand_in: StandIn
) -> None:
    given = dict(defaults_of(WORKFLOWS[name]))
    if of == "a submit":
        given = {parameter: f"the {parameter}" for parameter in given}
    ended = stand_in.workflow(name, {}).submit(**given)
    assert ended.phase == "Succeeded", ended.message
    for call in stand_in.calls:
        stage, step, *options = call["argv"]
        assert stage == templates_of(WORKFLOWS[name])["step"]["container"]["args"][2]
        assert step.startswith("--step=")
        expected = {f"--{parameter}={value}" for parameter, value in given.items() if value}
        if step in ("--step=smoke-test", "--step=set-staged-alias"):
            expected ^= {f"--adapter-source={given['adapter-source']}", "--adapter-source=version:"}
        assert sorted(options) == sorted(expected)


@pytest.mark.parametrize(
    "value",
    [
        "1; rm -rf /",
        "$(touch oops)`touch oops`",
        '"; exec false; "',
        "it's",
        "two  words\nand a line",
        "--help",
        "ends=",
        "=",
        "*",
        "\\",
        "ünïcode",
    ],
)
def test_a_nasty_parameter_reaches_the_command_as_one_argument(
    value: str, stand_in: StandIn
) -> None:
    ended = stand_in.workflow("promote-lora-adapter", {}).submit(model_name=value)
    assert ended.phase == "Succeeded", ended.message
    (call,) = stand_in.calls
    assert f"--model-name={value}" in call["argv"]
    assert len(call["argv"]) == 8
    assert not list(stand_in.folder.rglob("oops"))


def test_a_lost_connection_alone_is_tried_again_under_the_same_request(
    stand_in: StandIn,
) -> None:
    workflow = stand_in.workflow(
        "train-validate-lora", {"train train": {"exit_codes": [75, 75, 0]}}
    )
    assert workflow.submit().phase == "Succeeded"
    assert stand_in.steps == ["download-data", "train", "train", "train", "quality-gate"]
    requests = [call["request"] for call in stand_in.calls]
    assert len(set(requests)) == 1
    (train,) = [node for name, node in workflow.nodes.items() if name.endswith(".train")]
    assert train.exit_codes == [75, 75, 0]
    assert train.waits == [15, 30]


@pytest.mark.parametrize("code", [1, 2, 74, 137])
def test_no_other_failure_is_tried_again(code: int, stand_in: StandIn) -> None:
    workflow = stand_in.workflow("train-validate-lora", {"train train": {"exit_codes": [code, 0]}})
    assert workflow.submit().phase == "Failed"
    assert stand_in.steps == ["download-data", "train", "terminate"]


def test_retries_come_to_an_end(stand_in: StandIn) -> None:
    workflow = stand_in.workflow(
        "promote-lora-adapter", {"promote promote-adapter": {"exit_codes": [75]}}
    )
    assert workflow.submit().phase == "Failed"
    assert stand_in.steps == [*["promote-adapter"] * 9, "terminate"]


def test_the_steps_of_one_workflow_share_its_request_and_no_other_has_it(
    stand_in: StandIn,
) -> None:
    """A run of Dagster is found by request and step, so steps that share a run find it."""
    for _ in range(2):
        stand_in.workflow("evaluate-lora-adapter", {}).submit()
    requests = [call["request"] for call in stand_in.calls]
    assert len(set(requests[:5])) == len(set(requests[5:])) == 1
    assert requests[0] != requests[5]


def test_a_pipelines_workflows_have_a_request_each(stand_in: StandIn) -> None:
    stand_in.workflow("lora-pipeline", _pipeline_plan()).submit()
    calls = [call for call in stand_in.calls if call["step"] != "check"]
    stages = {call["argv"][0]: call["request"] for call in calls}
    assert len(set(stages.values())) == 5
    assert {(call["argv"][0], call["request"]) for call in calls} == set(stages.items())


def test_the_version_that_was_loaded_is_smoke_tested_and_staged(stand_in: StandIn) -> None:
    plan = {"deploy load-adapter": {"outputs": {"model-version": "7"}}}
    stand_in.workflow("deploy-lora-adapter", plan).submit(adapter_source="alias:previous")
    sources = [a for call in stand_in.calls for a in call["argv"] if "--adapter-source" in a]
    assert sources == ["--adapter-source=alias:previous", *["--adapter-source=version:7"] * 2]


def test_training_outputs_its_result_run_and_version(stand_in: StandIn) -> None:
    plan = {
        "train train": {"outputs": {"run-id": "r1"}},
        "train quality-gate": {
            "outputs": {
                "result": "passed\n",
                "data-version": "2",
                "model-version": "7",
                "digest": "d",
            }
        },
    }
    ended = stand_in.workflow("train-validate-lora", plan).submit()
    assert ended.outputs == {
        "result": "passed",
        "run-id": "r1",
        "data-version": "2",
        "model-version": "7",
        "digest": "d",
    }


def test_a_failed_quality_gate_ends_training_gracefully_and_says_so(stand_in: StandIn) -> None:
    plan = {"train quality-gate": {"outputs": {"result": "failed"}}}
    ended = stand_in.workflow("train-validate-lora", plan).submit()
    assert ended.phase == "Succeeded"
    assert ended.outputs["result"] == "failed"
    assert ended.outputs["model-version"] == ""


@pytest.mark.parametrize(
    ("name", "gate"),
    [
        ("evaluate-lora-adapter", "evaluate compare-decision"),
        ("performance-test-lora", "performance perf-decision"),
        ("deploy-lora-adapter", "deploy smoke-test"),
    ],
)
def test_any_other_failed_gate_fails_its_workflow(name: str, gate: str, stand_in: StandIn) -> None:
    plan = {gate: {"exit_codes": [1], "outputs": {"result": "failed"}}}
    workflow = stand_in.workflow(name, plan)
    assert workflow.submit().phase == "Failed"
    (node,) = [n for each, n in workflow.nodes.items() if each.endswith(f".{gate.split()[1]}")]
    assert node.exit_codes == [1]
    assert node.outputs["result"] == "failed"
    assert stand_in.steps[-2:] == [gate.split()[1], "terminate"]


def _pipeline_plan(**changes: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"train train": PASSED, "train quality-gate": PASSED, **changes}


def test_the_pipeline_checks_all_its_parameters_first(stand_in: StandIn) -> None:
    given = {name: f"the {name}" for name in defaults_of(WORKFLOWS["lora-pipeline"])}
    workflow = stand_in.workflow("lora-pipeline", {"check check": {"exit_codes": [1]}})
    assert workflow.submit(**given).phase == "Failed"
    assert stand_in.steps == ["check", "terminate"]
    _, *options = stand_in.calls[0]["argv"]
    assert options == [f"--{name}={value}" for name, value in given.items()]


def test_the_pipeline_takes_what_it_trained_to_live(stand_in: StandIn) -> None:
    """Each of the five gets the pipeline's value of every parameter that it has."""
    given = {name: f"the {name}" for name in defaults_of(WORKFLOWS["lora-pipeline"])}
    ended = stand_in.workflow("lora-pipeline", _pipeline_plan()).submit(**given)
    assert ended.phase == "Succeeded", ended.message
    assert ended.outputs["result"] == "passed"
    assert len(stand_in.calls) == 1 + 3 + 3 + 5 + 3 + 1
    chosen = {
        "adapter-source": {"version:7", "version:"},
        "slot-name": {given["candidate-adapter"]},
        "source-alias": {"perf-passed"},
        "model-name": {"mistral-7b-lora"},
        "mlflow-experiment": {"vllm-lora-evaluation", "vllm-lora-performance"},
    }
    for call in stand_in.calls:
        for option in call["argv"]:
            name, equals, value = option.removeprefix("--").partition("=")
            if equals and name != "step":
                assert value in chosen.get(name, {given.get(name)}), option


def test_the_pipeline_ends_gracefully_after_a_failed_quality_gate(stand_in: StandIn) -> None:
    plan = _pipeline_plan(**{"train quality-gate": {"outputs": {"result": "failed"}}})
    workflow = stand_in.workflow("lora-pipeline", plan)
    ended = workflow.submit()
    assert ended.phase == "Succeeded"
    assert ended.outputs["result"] == "failed"
    assert stand_in.steps == ["check", "download-data", "train", "quality-gate"]
    skipped = {
        name.rpartition(".")[2] for name, node in workflow.nodes.items() if node.phase == "Skipped"
    }
    assert skipped == {"deploy", "evaluate", "performance", "promote", "terminate"}


def test_a_quality_gate_without_a_result_does_not_pass(stand_in: StandIn) -> None:
    workflow = stand_in.workflow("lora-pipeline", _pipeline_plan(**{"train quality-gate": {}}))
    assert workflow.submit().phase == "Failed"
    assert stand_in.steps == ["check", "download-data", "train", "quality-gate", "terminate"]


@pytest.mark.parametrize("gate", ["evaluate compare-decision", "performance perf-decision"])
def test_the_pipeline_promotes_nothing_past_a_failed_gate(gate: str, stand_in: StandIn) -> None:
    plan = _pipeline_plan(**{gate: {"exit_codes": [1], "outputs": {"result": "failed"}}})
    workflow = stand_in.workflow("lora-pipeline", plan)
    assert workflow.submit().phase == "Failed"
    assert stand_in.steps[-2:] == [gate.split()[1], "terminate"]


def _stopped(workflow: ArgoWorkflow, when: Callable[[], object]) -> str:
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(workflow.submit)
        when()
        workflow.stop()
        return ended.result().phase


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(1, id="while it follows its run"),
        pytest.param(75, id="before another attempt"),
        pytest.param(143, id="as it starts"),
    ],
)
def test_stopping_reaches_the_command_itself_and_afterwards_its_runs_are_terminated(
    code: int, stand_in: StandIn
) -> None:
    workflow = stand_in.workflow("train-validate-lora", {"train train": {"wait": code}})
    # Opening the pipe waits until the stand-in is there to be stopped.
    ready = stand_in.folder / "ready"
    assert _stopped(workflow, ready.read_text) == "Failed"
    assert (stand_in.folder / "stopped").exists()
    assert stand_in.steps == ["download-data", "train", "terminate"]
    assert {call["workflow"] for call in stand_in.calls} == {f"ml-models/{workflow.name}"}
