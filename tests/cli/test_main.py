"""The command line as a person uses it: a whole life of an adapter, and bad input."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from lora_assets.embedded.judge_app import LEXICAL_JUDGE
from lora_assets.lifecycle import GATES
from lora_assets.local.instance import open_instance
from lora_assets.records.run_tags import STOPPED_BY
from lora_assets.settings import read_settings
from lora_assets.stack_resources import make_resources
from tests.support.commands import Output, Run
from tests.support.policies import ANY_ANSWER, ANY_SPEED, write_policy
from tests.support.stack import free_port, serving, stack_environment


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    home = tmp_path_factory.mktemp("home")
    # Not of training: how well version 2 predicts decides.
    own = stack_environment(home, free_port())
    # As in a cluster: verdicts of these servers alone count.
    listed = {"servers": [f"{own['VLLM_URL']}/"], "judges": {own["JUDGE_URL"]: LEXICAL_JUDGE}}
    environment = {**own, **write_policy(home, ANY_ANSWER, ANY_SPEED, listed)}
    with serving(environment):
        yield environment


def status(output: Output, environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output(environment, "status", "--json"))
    return found


def test_from_a_data_version_to_live_and_a_spoiled_one_is_stopped(
    output: Output, environment: Mapping[str, str]
) -> None:
    output(environment, "data", "build", "--data-version", "1", "--services", "s3")
    trained = json.loads(output(environment, "train", "--data-version", "1", "--json"))
    assert (trained["result"], trained["model_version"]) == ("passed", "1")
    loss = trained["verdicts"]["quality_gate"]["checks"][0]
    assert (loss["name"], loss["comparison"], loss["limit"]) == ("eval_loss", "<=", 1)
    assert status(output, environment)["aliases"]["candidate"]["version"] == 1
    output(environment, "deploy")
    lax = ("--min-a-rate", "0", "--max-c-rate", "1", "--min-refusal-rate", "0")
    refused = output(environment, "evaluate", "--min-a-rate", "1")
    assert "eval_gate stopped it" in refused
    assert "a_rate" in refused
    assert "eval-failed" in status(output, environment)["aliases"]
    settings = read_settings(environment)
    instance = open_instance(settings.dagster_home, managed=True)
    (run,) = instance.get_runs(dg.RunsFilter(tags={STOPPED_BY: "eval_gate"}))
    registry = make_resources(settings).registry
    verdicts = registry.verdicts(registry.resolve("version:1"))
    assert verdicts["eval_gate"].dagster_run == run.run_id
    output(environment, "evaluate", *lax)
    found = status(output, environment)["aliases"]
    assert "eval-passed" in found
    assert "eval-failed" not in found
    assert "perf_gate has no verdict" in output(environment, "promote")
    output(environment, "performance", "--max-samples", "20")
    output(environment, "promote", "--source-alias", "perf-passed")
    live = status(output, environment)
    digest = live["aliases"]["live"]["digest"]
    assert set(live["aliases"]) == {"candidate", "live"}
    assert live["replicas"][0]["adapters"]["aws-rag-qa-live"] == digest

    spoiled = ("--data-version", "2", "--services", "s3", "--spoiled")
    output(environment, "data", "build", *spoiled)
    stopped = output(environment, "train", "--data-version", "2")
    assert "quality_gate stopped it: eval_loss" in stopped
    assert status(output, environment)["aliases"] == live["aliases"]


def test_each_step_of_the_specification_runs_by_itself(
    output: Output, environment: Mapping[str, str], tmp_path: Path
) -> None:
    def outputs() -> dict[str, str]:
        return {path.name: path.read_text() for path in tmp_path.iterdir()}

    def take(stage: str, steps: str, *arguments: str) -> None:
        for step in steps.split():
            assert output(to_files, stage, "--step", step, *arguments) == ""
            found = outputs()
            assert (found["data-version"], found["result"]) == ("1", "passed")
            assert ("digest" in found) == (step != "download-data")

    to_files = {**environment, "LORA_ASSETS_OUTPUTS": str(tmp_path)}
    output(environment, "data", "build", "--data-version", "1", "--services", "s3")
    take("train", "download-data train quality-gate", "--data-version", "1")
    # The policy is what stands where no option is given.
    take("deploy", "load-adapter smoke-test set-staged-alias")
    take("evaluate", "inference-candidate inference-live judge-answers compare-decision")
    take("performance", "run-load-test", "--max-samples", "4")
    take("performance", "perf-decision")
    take("promote", "promote-adapter", "--source-alias", "perf-passed")
    live = status(output, environment)["aliases"]["live"]
    assert outputs()["digest"] == live["digest"]
    assert outputs()["model-version"] == str(live["version"])


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("train", "--data-version", "../1"), "'../1' can't be the name of a data version"),
        (("train", "--data-version", "1", "--learning-rate", "0"), "learning_rate = 0.0"),
        (("deploy", "--adapter-source", "alias:perf-passed"), "'perf-passed' of mistral-7b-lora"),
        (("deploy", "--adapter-source", "latest"), "'latest' names no adapter"),
        (("deploy", "--adapter-source", "version:99"), "mistral-7b-lora has no version 99."),
        (("deploy", "--adapter-source", f"version:{10**20}"), "names no adapter"),
        (("promote", "--source-alias", "eval-passed"), "'eval-passed' of mistral-7b-lora"),
        (("deploy", "--step", "smoke"), "'smoke' is not one of"),
        (("deploy", "--slot-name", "../live"), "--slot-name ../live"),
        (("promote", "--slot-name", "../live"), "--slot-name ../live"),
        (("evaluate", "--candidate-adapter", "a/b"), "--candidate-adapter a/b"),
    ],
)
def test_bad_input_is_one_line_with_cause_and_remedy_and_changes_nothing(
    output: Output, environment: Mapping[str, str], arguments: tuple[str, ...], cause: str
) -> None:
    output(environment, "data", "build", "--data-version", "1", "--services", "s3")
    before = status(output, environment)
    message = output(environment, *arguments)
    assert cause in message
    assert message.startswith("error: ")
    assert "\n" not in message
    assert status(output, environment) == before


def test_data_that_are_not_sound_stop_the_training_with_what_to_do(
    run: Run, output: Output, environment: Mapping[str, str], tmp_path: Path
) -> None:
    output(environment, "data", "build", "--data-version", "1", "--services", "s3")
    bucket = Path(environment["LORA_ASSETS_HOME"]) / "bucket" / "data" / "processed"
    unsound = bucket / f"unsound-{tmp_path.name}"
    shutil.copytree(bucket / "1", unsound)
    leaked, cause = (unsound / "train.jsonl").read_text().splitlines()[0], "duplicate rows 1"
    with (unsound / "eval.jsonl").open("a") as split:
        split.write(f"{leaked}\n")
    before = status(output, environment)
    ended, printed = run(environment, "train", "--data-version", unsound.name, "--json")
    message, (gate,) = str(ended), json.loads(printed)["verdicts"].values()
    assert [cause in failure for failure in gate["failures"]] == [True]
    assert [check["name"] in cause for check in gate["checks"] if not check["passed"]] == [True]
    assert message.startswith(f"error: data_is_sound stopped it: {cause} (must be ")
    assert message.endswith(GATES["data_is_sound"].remedy)
    assert "\n" not in message
    refused = output(environment, "train", "--data-version", unsound.name, "--step", "train")
    assert f"failed data_is_sound ({cause}" in refused
    assert "\n" not in refused
    assert status(output, environment) == before
