"""check: what a pipeline could only fail with later is one line before its training."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from lora_assets.settings import EMBEDDED_BASE_NAME
from lora_assets.stack_resources import Resources
from tests.support.commands import Run, register
from tests.support.doubles.broken_vllm import BrokenVllm, listening
from tests.support.remote_dagster import small_data

NOWHERE = "http://127.0.0.1:9"
"""The port of discard, which nothing serves; a free one would be in the tests' names."""

PATHS = ("a/b", "../../x")
NO_FOLDERS = (*PATHS, "", "it's")
TAKEN = (f"a-model-v3-{'0' * 12}", EMBEDDED_BASE_NAME)


@pytest.fixture(autouse=True)
def data_version_1(tmp_path: Path) -> None:
    small_data(tmp_path / "bucket")


def test_what_a_pipeline_can_succeed_with_passes(run: Run, environment: Mapping[str, str]) -> None:
    assert run(environment, "check", "--data-version", "1") == (0, "")
    ended, printed = run(environment, "check", "--json")
    found = json.loads(printed)
    assert (ended, found["data_version"], found["result"]) == (0, "1", "passed")
    assert found["verdicts"]["data_is_sound"]["passed"] is True


def test_data_that_are_not_sound_are_told_to_a_program_with_the_numbers_that_failed(
    run: Run, environment: Mapping[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "bucket" / "data" / "processed" / "1"
    leaked = (folder / "train.jsonl").read_text().splitlines()[0]
    (folder / "eval.jsonl").write_text(f"{(folder / 'eval.jsonl').read_text()}{leaked}\n")
    ended, printed = run(environment, "check", "--json")
    found = json.loads(printed)
    assert "failed data_is_sound (duplicate rows 1" in str(ended)
    assert found["result"] == "failed"
    assert found["verdicts"]["data_is_sound"]["failures"] == ["duplicate rows 1 (must be <= 0)"]


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("--lora-config", "extended"), "lora_config = 'extended' is not possible"),
        (("--lora-method", "dora"), "vLLM does not serve DoRA: use lora or rslora."),
        (("--num-epochs", "few"), "'few' is not a valid integer"),
        *((("--mlflow-experiment", name), f"-experiment {name} is not") for name in NO_FOLDERS),
        *((("--model-name", name), "MODEL_NAME is not possible") for name in PATHS),
        *((("--seed", seed), f"seed = {seed} is not possible") for seed in ("-1", "4294967296")),
        (("--max-eval-loss", "nan"), "--max-eval-loss nan is not possible"),
        (("--candidate-adapter", "../a"), "--candidate-adapter ../a is not possible"),
        (("--candidate-adapter", "aws-rag-qa-live"), "aws-rag-qa-live is the live slot"),
        *((("--candidate-adapter", name), f"{name} can't be a slot") for name in TAKEN),
        *((("--live-adapter", name), f"{name} can't be a slot") for name in TAKEN),
        (("--slices", "nope"), "The eval split can't be sliced by 'nope'"),
        (("--also-evaluate", "zzz"), "Data version zzz has no file:"),
        (("--also-evaluate", ","), "--also-evaluate , is not possible"),
        (("--min-a-rate", "70"), "--min-a-rate 70.0 is not possible"),
        (("--max-concurrent", "0"), "--max-concurrent 0 is not possible"),
        (("--max-tokens", "0"), "--max-tokens 0 is not possible"),
        (("--max-p95-latency", "-1"), "--max-p95-latency -1.0 is not possible"),
        (("--min-throughput", "-1"), "--min-throughput -1.0 is not possible"),
        (("--max-seq-length", "40"), "longer than 40 tokens (max-seq-length)"),
        (("--data-version", "nope"), "Data version nope has no file:"),
        (("--mlflow-tracking-uri", NOWHERE), f"MLflow at {NOWHERE} failed"),
        (("--vllm-url", NOWHERE), f"vLLM at {NOWHERE} is unreachable"),
        (("--judge-url", NOWHERE), f"The judge at {NOWHERE} is unreachable"),
        (("--prometheus-url", NOWHERE), f"Prometheus at {NOWHERE} failed"),
        (("--prometheus-url", "http://h:99999"), "failed (there is no port 99999)"),
    ],
)
def test_what_could_only_fail_later_is_one_line(
    run: Run, environment: Mapping[str, str], arguments: tuple[str, ...], cause: str
) -> None:
    ended, _ = run(environment, "check", "--data-version", "1", *arguments)
    assert str(ended).startswith("error: ")
    assert cause in str(ended)
    assert "\n" not in str(ended)


def test_two_servers_behind_one_url_are_told_as_that_and_not_by_what_one_of_them_lacks(
    run: Run, environment: Mapping[str, str], resources: Resources,
    adapter_folders: tuple[Path, ...],
) -> None:  # fmt: skip
    register(resources, adapter_folders[0], "live")
    with listening(BrokenVllm(several=True).app()) as url:
        ended, _ = run({**environment, "VLLM_REPLICAS": url}, "check", "--data-version", "1")
    assert str(ended).startswith(f"error: Several servers answer at {url}: ")


def test_a_rank_above_the_servers_is_refused(run: Run, environment: Mapping[str, str]) -> None:
    low = {**environment, "VLLM_MAX_LORA_RANK": "16"}
    ended, _ = run(low, "check", "--data-version", "1", "--lora-config", "high_capacity")
    assert "rank 32 is above the server's 16" in str(ended)
    assert run(low, "check", "--data-version", "1", "--lora-config", "aggressive")[0] == 0


def test_a_live_version_that_is_not_in_its_slot_or_is_of_newer_data_is_refused(
    run: Run, environment: Mapping[str, str], resources: Resources,
    adapter_folders: tuple[Path, ...],
) -> None:  # fmt: skip
    register(resources, adapter_folders[0], "live")
    ended, _ = run(environment, "check", "--data-version", "1")
    assert "serves nothing as aws-rag-qa-live, expected version 1" in str(ended)
    processed = Path(environment["LORA_ASSETS_HOME"]) / "bucket" / "data" / "processed"
    (processed / "1").rename(processed / "0")
    ended, _ = run(environment, "check", "--data-version", "0")
    assert "Data version 0 is older than live 1, and would not be promoted" in str(ended)
    ended, _ = run(environment, "check", "--data-version", "0", "--allow-older=true")
    assert "serves nothing as aws-rag-qa-live" in str(ended)
