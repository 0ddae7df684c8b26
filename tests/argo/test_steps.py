"""Run the workflows of argo/ by a double of Argo's controller.

Their steps call a stand-in for lora-assets that records its arguments and exits as planned.
"""

import json
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
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
    _, stage, option, *_ = *sys.argv, ""
    step = option.removeprefix("--step=") if option.startswith("--step=") else stage
    plans = json.loads((folder / "plan.json").read_text())
    plan = plans.get(step, plans["any other"])
    earlier = [json.loads(line)["step"] for line in (folder / "calls").read_text().splitlines()]
    request = os.environ.get("LORA_ASSETS_REQUEST")
    workflow = os.environ.get("LORA_ASSETS_ARGO_WORKFLOW")
    with (folder / "calls").open("a") as calls:
        call = {"argv": sys.argv[1:], "step": step, "request": request, "workflow": workflow}
        calls.write(json.dumps(call) + "\\n")
    outputs = pathlib.Path(os.environ.get("LORA_ASSETS_OUTPUTS", "outputs"))
    outputs.mkdir(parents=True)
    for name, value in plan.get("outputs", {}).items():
        (outputs / name).write_text(value)
    if "wait" in plan:
        def stop(*_):
            (folder / "stopped").touch()
            sys.exit(plan["wait"])
        signal.signal(signal.SIGTERM, stop)
        (folder / "ready").write_text(str(os.getpid()))
        signal.pause()
    codes = plan.get("exit_codes", [0])
    sys.exit(codes[min(earlier.count(step), len(codes) - 1)])
"""

VERSION = {"data-version": "2", "model-version": "7", "digest": "d"}
OUTPUTS = {"result": "passed", "run-id": "r1", **VERSION}
FAILED = {"exit_codes": [1], "outputs": {"result": "failed"}}


class StandIn:
    """A folder on the PATH with a `lora-assets` that plays a plan."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = folder / "lora-assets"
        command.write_text(f"#!{sys.executable}\n{textwrap.dedent(STAND_IN)}")
        command.chmod(0o755)
        (folder / "calls").touch()
        os.mkfifo(folder / "ready")

    def workflow(self, name: str, **plan: Mapping[str, Any]) -> ArgoWorkflow:
        """Return a workflow whose steps do what `plan` says (`_` stands for `-`), or else pass."""
        steps = {step.replace("_", "-"): each for step, each in plan.items()}
        plans = {"any other": {"outputs": OUTPUTS}, **steps}
        (self.folder / "plan.json").write_text(json.dumps(plans))
        environment = {"PATH": f"{self.folder}:/usr/bin:/bin", "STAND_IN": str(self.folder)}
        return ArgoWorkflow(WORKFLOWS[name], TEMPLATES, environment, self.folder)

    @property
    def calls(self) -> Sequence[Mapping[str, Any]]:
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]

    @property
    def steps(self) -> list[str]:
        return [call["step"] for call in self.calls]


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    return StandIn(tmp_path)


def a_submit(name: str) -> dict[str, str]:
    return {parameter: f"the {parameter}" for parameter in defaults_of(WORKFLOWS[name])}


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("of", ["the defaults", "a submit"])
def test_every_step_gets_every_parameter_but_an_empty_one_and_its_outputs_are_read(
    name: str, of: str, stand_in: StandIn
) -> None:
    given = a_submit(name) if of == "a submit" else defaults_of(WORKFLOWS[name])
    workflow = stand_in.workflow(name)
    ended = workflow.submit(**given)
    assert ended.phase == "Succeeded", ended.message
    steps = [workflow.node(step) for step in stand_in.steps[:-1]]
    assert [step.outputs for step in steps] == [OUTPUTS] * len(steps)
    for call in stand_in.calls[:-1]:
        stage, step, *options = call["argv"]
        assert stage == templates_of(WORKFLOWS[name])["step"]["container"]["args"][2]
        assert step.startswith("--step=")
        # An empty judge's model is given: the judge is asked for it.
        expected = {
            f"--{parameter}={value}"
            for parameter, value in given.items()
            if value or parameter == "judge-model"
        }
        if step in ("--step=smoke-test", "--step=set-staged-alias"):
            expected ^= {f"--adapter-source={given['adapter-source']}"}
            expected |= {"--adapter-source=version:7"}
        assert sorted(options) == sorted(expected)


@pytest.mark.parametrize(
    "value",
    [
        *("1; rm -rf /", "$(touch oops)`touch oops`", '"; exec false; "', "it's", "--help"),
        *("two  words\nand a line", "ends=", "=", "*", "\\", "ünïcode"),
    ],
)
def test_a_nasty_parameter_reaches_the_command_as_one_argument(
    value: str, stand_in: StandIn
) -> None:
    ended = stand_in.workflow("promote-lora-adapter").submit(model_name=value)
    assert ended.phase == "Succeeded", ended.message
    call, _ = stand_in.calls
    assert f"--model-name={value}" in call["argv"]
    assert len(call["argv"]) == 8
    assert not list(stand_in.folder.rglob("oops"))


@pytest.mark.parametrize(
    ("codes", "attempts"),
    [([75, 75, 0], 3), ([75], 9), *(([code, 0], 1) for code in (1, 2, 74, 137))],
)
def test_a_lost_connection_alone_is_tried_again_under_the_same_request_and_not_for_ever(
    codes: list[int], attempts: int, stand_in: StandIn
) -> None:
    workflow = stand_in.workflow("train-validate-lora", train={"exit_codes": codes})
    succeeds = codes == [75, 75, 0]
    assert workflow.submit().phase == ("Succeeded" if succeeds else "Failed")
    last = ["quality-gate", "terminate"] if succeeds else ["terminate"]
    assert stand_in.steps == ["download-data", *["train"] * attempts, *last]
    assert len({call["request"] for call in stand_in.calls if call["step"] == "train"}) == 1
    assert workflow.node("train").waits == [15 * 2**wait for wait in range(attempts - 1)]


def test_the_steps_of_a_workflow_share_its_request_and_no_other_has_it(stand_in: StandIn) -> None:
    """A run of Dagster is found by request and step, so steps that share a run find it."""
    uids = []
    for _ in range(2):
        workflow = stand_in.workflow("lora-pipeline")
        workflow.submit()
        uids.append(workflow.uid)
    calls = [call for call in stand_in.calls if call["step"] not in ("check", "terminate")]
    requests = {(call["argv"][0], call["request"]) for call in calls}
    assert len(requests) == len({request for _, request in requests}) == 2 * len(STAGES)
    for uid in uids:
        of_one = {stage for stage, request in requests if request.startswith(uid)}
        assert len(of_one) == len(STAGES)


@pytest.mark.parametrize(
    ("name", "gate"),
    [
        ("evaluate-lora-adapter", "compare-decision"),
        ("performance-test-lora", "perf-decision"),
        ("deploy-lora-adapter", "smoke-test"),
        ("lora-pipeline", "compare-decision"),
        ("lora-pipeline", "perf-decision"),
    ],
)
def test_any_other_failed_gate_fails_its_workflow_and_nothing_follows(
    name: str, gate: str, stand_in: StandIn
) -> None:
    workflow = stand_in.workflow(name, **{gate: FAILED})
    assert workflow.submit().phase == "Failed"
    assert workflow.node(gate).exit_codes == [1]
    assert workflow.node(gate).outputs["result"] == "failed"
    assert stand_in.steps[-2:] == [gate, "terminate"]


def test_the_pipeline_checks_all_its_parameters_first(stand_in: StandIn) -> None:
    given = a_submit("lora-pipeline")
    workflow = stand_in.workflow("lora-pipeline", check={"exit_codes": [1]})
    assert workflow.submit(**given).phase == "Failed"
    assert stand_in.steps == ["check", "terminate"]
    _, *options = stand_in.calls[0]["argv"]
    assert options == [f"--{name}={value}" for name, value in given.items()]


def test_the_pipeline_takes_what_it_trained_to_live(stand_in: StandIn) -> None:
    """Each of the five gets the pipeline's value of every parameter that it has."""
    given = a_submit("lora-pipeline")
    ended = stand_in.workflow("lora-pipeline").submit(**given)
    assert ended.phase == "Succeeded", ended.message
    assert ended.outputs["result"] == "passed"
    stages = ["check", *["train"] * 3, *["deploy"] * 3]
    stages += [*["evaluate"] * 5, *["performance"] * 3, "promote", "terminate"]
    assert [call["argv"][0] for call in stand_in.calls] == stages
    chosen = {
        "adapter-source": {"version:7"},
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
    failed = {"outputs": {"result": "failed"}}
    workflow = stand_in.workflow("lora-pipeline", quality_gate=failed)
    ended = workflow.submit()
    assert ended.phase == "Succeeded"
    assert ended.outputs["result"] == "failed"
    assert stand_in.steps == ["check", "download-data", "train", "quality-gate", "terminate"]
    for skipped in ("deploy", "evaluate", "performance", "promote"):
        assert workflow.node(skipped).phase == "Skipped"


def test_an_end_that_dagster_does_not_take_fails_no_workflow_that_succeeded(
    stand_in: StandIn,
) -> None:
    workflow = stand_in.workflow("promote-lora-adapter", terminate={"exit_codes": [1]})
    assert workflow.submit().phase == "Succeeded"
    assert workflow.node("terminate").phase == "Failed"
    assert workflow.nodes[f"{workflow.name}.onExit"].phase == "Succeeded"


def test_a_quality_gate_without_a_result_does_not_pass(stand_in: StandIn) -> None:
    workflow = stand_in.workflow("lora-pipeline", quality_gate={})
    assert workflow.submit().phase == "Failed"
    assert stand_in.steps == ["check", "download-data", "train", "quality-gate", "terminate"]


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
    workflow = stand_in.workflow("train-validate-lora", train={"wait": code})
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(workflow.submit)
        # Opening the pipe waits until the stand-in is there to be stopped.
        (stand_in.folder / "ready").read_text()
        workflow.stop()
        assert ended.result().phase == "Failed"
    assert (stand_in.folder / "stopped").exists()
    assert stand_in.steps == ["download-data", "train", "terminate"]
    assert {call["workflow"] for call in stand_in.calls} == {f"ml-models/{workflow.name}"}
