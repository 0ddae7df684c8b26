"""What stage commands check and refuse on a real Dagster."""

import json
import os
import re
from pathlib import Path

import pytest

from lora_assets.embedded.data_set.versions import build
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.progress import PARTITION_TAG
from lora_assets.settings import read_settings
from lora_assets.stack_resources import make_resources
from tests.support.remote_commands import TRAIN, Stages, outputs
from tests.support.remote_dagster import SECRET
from tests.support.stack import trained
from tests.test_heavy_imports import NOT_TO_FOLLOW

OTHER_MODEL = "another-model"


def test_a_check_asks_what_the_runs_of_dagster_will_work_with(stages: Stages) -> None:
    elsewhere = {"VLLM_URL": "http://127.0.0.1:9", "BASE_MODEL_NAME": "another"}
    code, printed = stages.run("check", "--data-version", "1", **elsewhere)
    measured = "note: rows are measured where the training takes place\n"
    assert (code, printed) == (
        0,
        f"{measured}check: done\nnext: lora-assets train --data-version 1\n",
    )
    code, printed = stages.run("check", "--data-version", "1", "--vllm-url", "http://[::1]:9")
    assert code == 1
    *withheld, last = printed.splitlines()
    assert last.startswith("error: vLLM at http://[::1]:9 is unreachable")
    assert {line.partition(":")[0] for line in withheld} == {"VLLM_API_KEY is not sent"}
    assert stages.runs() == []


def test_a_failed_quality_gate_ends_training_gracefully_in_a_workflow_only(
    stages: Stages, staged: ModelVersion, tmp_path: Path
) -> None:
    step = (*TRAIN, "--step", "quality-gate", "--max-eval-loss", "0.00001")
    code, printed = stages.run(*step, LORA_ASSETS_OUTPUTS=str(tmp_path))
    assert code == 0
    assert "quality_gate stopped it: eval_loss 0.1 (must be <= 1e-05)" in printed
    found = outputs(tmp_path)
    assert (found["result"], found["digest"]) == ("failed", staged.digest)
    code, printed = stages.run(*step, LORA_ASSETS_OUTPUTS="")
    assert code == 1
    *_, last = printed.splitlines()
    assert last.startswith("error: quality_gate stopped it: eval_loss 0.1 (must be <= 1e-05). ")
    assert len(stages.runs()) == 1
    began = stages.dagster.events(found["run-id"], "ExecutionStepStartEvent")
    assert [event.step for event in began] == ["adapter_quality_gate"]


def test_a_program_gets_the_data_gates_verdict_which_only_the_run_knows(stages: Stages) -> None:
    found = stages.result(*TRAIN, "--step", "download-data")
    sound = found["verdicts"]["data_is_sound"]
    assert (found["result"], sound["passed"]) == ("passed", True)
    assert "duplicate rows" in [check["name"] for check in sound["checks"]]
    assert len(stages.runs()) == 1


def test_an_adapter_trained_elsewhere_is_registered_by_a_run_of_dagster(
    stages: Stages, adapter_folders: tuple[Path, ...]
) -> None:
    dagster = stages.dagster
    named = {**dagster.environment, "MODEL_NAME": "from-elsewhere"}
    registry = make_resources(read_settings(named)).registry
    build("7", ["sns"], dagster.home / "bucket", spoiled=False)
    given = ("--data-version", "7", "--eval-loss", "0.4", "--model-name", registry.model_name)
    code, printed = stages.run("register", str(adapter_folders[2]), *given)
    assert code == 0, printed
    (launched,) = stages.runs()
    assert launched.tags["dagster/partition"] == "7@from-elsewhere"
    assert registry.aliases()["candidate"].data_version == "7"
    made = dagster.events(launched.run_id, "MaterializationEvent")
    assert [event.asset for event in made] == ["training_data", "adapter", "gate_result"]


def test_the_run_works_where_the_parameters_say_and_no_secret_is_shown(
    stages: Stages, staged: ModelVersion, adapter_folders: tuple[Path, ...]
) -> None:
    dagster = stages.dagster
    named = {**dagster.environment, "MODEL_NAME": OTHER_MODEL}
    registry = make_resources(read_settings(named)).registry
    other = registry.register(trained(dagster.resources, adapter_folders[1], "1"))
    registry.set_alias("staged", other)
    where = ("--model-name", OTHER_MODEL, "--vllm-url", "http://127.0.0.1:9")
    code, printed = stages.run("promote", *where)
    assert code == 1
    assert f"error: live_deployment: Version {other.version} ({other.digest[:12]})" in printed
    assert "perf_gate has no verdict" in printed
    (launched,) = stages.runs()
    assert launched.tags["lora_assets/digest"] == other.digest
    seen = dagster.ask(
        f'{{ runOrError(runId: "{launched.run_id}") {{ ... on Run {{ runConfig }} }} }}'
    )
    configured = seen["runOrError"]["runConfig"]["resources"]
    # The key is for the configured server alone.
    assert configured["fleet"]["config"]["api_key"] == ""
    assert configured["fleet"]["config"]["vllm_url"] == "http://127.0.0.1:9"
    assert set(configured) == {"fleet"}
    assert launched.tags[PARTITION_TAG] == f"1@{OTHER_MODEL}"
    webserver = dagster.webserver
    shown = webserver.configured(webserver.locate("promote"))
    assert shown["fleet"]["api_key"] == {"env": "VLLM_API_KEY"}
    assert SECRET not in json.dumps([shown, seen])


def test_the_steps_of_an_evaluation_that_start_side_by_side_launch_one_run(
    stages: Stages, staged: ModelVersion, tmp_path: Path
) -> None:
    steps = ("inference-candidate", "inference-live")
    sides = [stages.start("evaluate", "--step", step) for step in steps]
    for side in sides:
        code, printed = side.end()
        assert code == 0, printed
    judge = ("evaluate", "--step", "judge-answers")
    told = {"LORA_ASSETS_OUTPUTS": str(tmp_path), "PYTHONPROFILEIMPORTTIME": "1"}
    code, printed = stages.start(*judge, **told).end()
    assert code == 0
    assert "graded 8 of 8" in printed
    assert not {top for top in NOT_TO_FOLLOW if re.search(rf"\| +{top}$", printed, re.M)}
    assert re.search(r"\| +httpx$", printed, re.M)
    (shared,) = stages.runs()
    assert shared.status == "SUCCESS"
    assert outputs(tmp_path) == {
        "run-id": shared.run_id,
        "data-version": "1",
        "model-version": str(staged.version),
        "digest": staged.digest,
        "result": "passed",
    }


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("train", "--data-version", "nope"), "Data version nope has no file:"),
        (("train", "--lora-config", "extended"), "the nearest is 'standard'."),
        (("performance",), "Alias 'eval-passed' of mistral-7b-lora is not set"),
        (("promote", "--source-alias", "best"), "Alias 'best' of mistral-7b-lora is not set"),
        ((*TRAIN, "--mlflow-tracking-uri", "http://[::1]:9"), "MLflow at"),
        (("terminate",), "The workflow whose runs to terminate, or its Dagster, is not given"),
    ],
)
def test_bad_input_is_refused_before_anything_is_launched(
    stages: Stages, arguments: tuple[str, ...], cause: str
) -> None:
    code, printed = stages.run(*arguments)
    assert code == 1
    assert cause in printed
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1
    assert stages.runs() == []


def test_data_that_has_changed_is_refused_before_the_evaluation(
    stages: Stages, staged: ModelVersion
) -> None:
    path = stages.dagster.home / "bucket" / "data" / "processed" / "1" / "val.jsonl"
    rows = path.read_text().splitlines(keepends=True)
    path.write_text("".join(rows[:-1]))
    code, printed = stages.run("evaluate", "--step", "download-eval-data")
    path.write_text("".join(rows))
    assert code == 1
    assert "error: Data version 1 has changed" in printed
    assert stages.runs() == []


@pytest.mark.parametrize(
    ("url", "code", "cause"),
    [
        ("http://127.0.0.1:9", os.EX_TEMPFAIL, "is lost"),
        ("dagster", 1, "'dagster' is not a URL"),
        ("{vllm}", 1, "but not as Dagster does"),
    ],
)
def test_a_dagster_that_is_not_there_is_named(
    stages: Stages, url: str, code: int, cause: str
) -> None:
    where = url.format(vllm=stages.dagster.environment["VLLM_URL"])
    ended, printed = stages.run(*TRAIN, DAGSTER_URL=where)
    assert (ended, printed.count("\n")) == (code, 1)
    assert cause in printed


def test_a_database_that_dagster_can_not_use_is_a_lost_connection(stages: Stages) -> None:
    runs = stages.dagster.home / "dagster" / "history" / "runs.db"
    with stages.dagster.nothing_starts():
        kept = runs.rename(runs.with_suffix(".kept"))
        runs.mkdir()
        code, printed = stages.run(*TRAIN)
        runs.rmdir()
        kept.rename(runs)
    assert (code, printed.count("\n")) == (os.EX_TEMPFAIL, 1)
    assert "can't use its database" in printed


def test_a_code_location_that_failed_to_load_is_named_with_its_error(stages: Stages) -> None:
    """The last test on this Dagster: it takes the code location away."""
    stages.dagster.code.kill()
    stages.dagster.ask("mutation { reloadWorkspace { __typename } }")
    code, printed = stages.run(*TRAIN)
    assert code == 1
    assert "failed to load (lora_assets.definitions: its server does not answer; " in printed
    assert "ValueError: this code location is broken). Correct it or start its server" in printed
    assert printed.count("\n") == 1
