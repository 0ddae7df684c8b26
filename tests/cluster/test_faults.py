"""A part that is not there, refuses, or dies half-way: one line, and nothing lost or changed."""

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient

from lora_assets.judging.evaluation import PROOFS
from tests.support.cluster import BUCKET, Cluster
from tests.support.cluster_stages import EVALUATE, PERFORMANCE, Run, build, succeed, train, training
from tests.support.commands import Ended
from tests.support.dagster_services import Part, meanwhile
from tests.support.stack import free_port

pytestmark = pytest.mark.e2e

DATA_VERSION = "0"


@pytest.fixture
def staged(cluster: Cluster, run: Run) -> None:
    """A staged adapter, past its eval gate."""
    aliases = cluster.resources.registry.aliases()
    if "candidate" not in aliases:
        build(run, DATA_VERSION, "sqs")
        train(run, DATA_VERSION, learning_rate="1e-3")
    if "staged" not in aliases:
        succeed(run, "deploy")
    if "eval-passed" not in aliases:
        succeed(run, *EVALUATE)


def state(cluster: Cluster) -> Mapping[str, Any]:
    """What a fault must leave alone: aliases and verdicts, what is served, the bucket's files."""
    registry, bucket = cluster.resources.registry, cluster.folder / "s3"
    aliases = registry.aliases()
    return {
        "aliases": aliases,
        "verdicts": {alias: registry.verdicts(version) for alias, version in aliases.items()},
        "served": cluster.resources.fleet.discover().members[0].listing(),
        "files": {path: path.read_bytes() for path in bucket.rglob("*") if path.is_file()},
    }


def require_one_line(ended: Ended, cause: str) -> None:
    assert isinstance(ended.code, str), ended
    assert ended.code.startswith("error: ")
    assert cause in ended.code
    assert "\n" not in ended.code
    assert "Traceback" not in ended.err


def refuse(
    cluster: Cluster,
    run: Run,
    command: Sequence[str],
    cause: str,
    during: AbstractContextManager[None] | None = None,
    **changes: str,
) -> None:
    """Require that a command ends in one line about the cause, and changes nothing."""
    before = state(cluster)
    with during or nullcontext():
        ended = run(*command, **changes)
    require_one_line(ended, cause)
    assert state(cluster) == before


@pytest.mark.parametrize(
    ("arguments", "variable", "value", "cause"),
    [
        (training("0", "1e-4"), "AWS_ENDPOINT_URL_S3", "{nowhere}", "{nowhere}"),
        (training("0", "1e-4"), "AWS_ENDPOINT_URL_S3", "minio:9000", "minio:9000"),
        (training("0", "1e-4"), "AWS_SECRET_ACCESS_KEY", "wrong", "SignatureDoesNotMatch"),
        (training("0", "1e-4"), "S3_DATA_BUCKET", "s3://other-bucket", "NoSuchBucket"),
        (training("0", "1e-4"), "MLFLOW_TRACKING_URI", "{nowhere}", "MLflow at {nowhere}"),
        (("deploy",), "MLFLOW_TRACKING_URI", "{other_host}", "--allowed-hosts localhost:"),
        (("deploy",), "VLLM_REPLICAS", "{nowhere}", "vLLM at {nowhere} is unreachable"),
        (EVALUATE, "VLLM_REPLICAS", "{nowhere}", "vLLM at {nowhere} is unreachable"),
        (EVALUATE, "JUDGE_URL", "{nowhere}", "The judge at {nowhere} is unreachable"),
        (PERFORMANCE, "PROMETHEUS_URL", "{nowhere}", "Prometheus at {nowhere} failed"),
        (PERFORMANCE, "PROMETHEUS_URL", "{mlflow}", "Prometheus at {mlflow} failed"),
    ],
)
def test_a_part_that_is_not_there_or_refuses_is_named_and_nothing_changes(
    cluster: Cluster, run: Run, staged: None, arguments: tuple[str, ...], variable: str, value: str,
    cause: str,
) -> None:  # fmt: skip
    mlflow, nowhere = cluster.mlflow.url, f"http://127.0.0.1:{free_port()}"
    other_host = mlflow.replace("127.0.0.1", "localhost")
    urls = {"nowhere": nowhere, "mlflow": mlflow, "other_host": other_host}
    refuse(cluster, run, arguments, cause.format(**urls), **{variable: value.format(**urls)})


@contextmanager
def dies_when(part: Part, condition: Callable[[], bool]) -> Iterator[None]:
    """Kill the part, within the block, as soon as the condition holds; start it again after it."""
    process = part.process
    assert process is not None

    def watch() -> None:
        if process.poll() is None and condition():
            part.kill()

    try:
        with meanwhile(watch, 0.02):
            yield
    finally:
        died = process.poll() is not None
        if died:
            part.start()
    assert died, f"{part.name} was never killed"


def completions(cluster: Cluster) -> int:
    """Return how many requests the model server has answered since its start."""
    text = httpx.get(f"{cluster.vllm.url}/metrics").text
    counted = re.findall(r"^vllm:request_success_total\{.*\} (\S+)$", text, re.MULTILINE)
    return sum(int(float(count)) for count in counted)


def test_mlflow_dies_while_training_and_the_next_run_goes_on_from_the_checkpoint(
    cluster: Cluster, run: Run
) -> None:
    build(run, "0.1", "sqs")
    command = training("0.1", "2e-3")
    work = Path(cluster.environment["LORA_ASSETS_HOME"]) / "work" / "training"
    before = state(cluster)
    known = set(work.glob("*/checkpoints/*.sha256"))
    with dies_when(cluster.mlflow, lambda: bool(set(work.glob("*/checkpoints/*.sha256")) - known)):
        first = run(*command)
    require_one_line(first, f"MLflow at {cluster.mlflow.url} failed")
    after = state(cluster)
    assert {**after, "files": None} == {**before, "files": None}
    second = succeed(run, *command)
    lines = [re.findall(r"trained (\d+) of 11175 tokens", ended.err) for ended in (first, second)]
    began, went_on = (int(tokens[0]) for tokens in lines)
    assert began < went_on
    candidate = cluster.resources.registry.resolve("alias:candidate")
    assert candidate.data_version == "0.1"
    client = MlflowClient(cluster.mlflow.url)
    experiment = client.get_run(candidate.run_id).info.experiment_id
    runs = client.search_runs([experiment], "tags.`data.version` = '0.1'")
    assert [run.info.status for run in runs] == ["FINISHED"]


@pytest.mark.parametrize("dying", ["vllm", "judge", "s3"])
def test_a_part_dies_in_the_evaluation_and_the_next_run_asks_only_what_is_missing(
    cluster: Cluster, run: Run, staged: None, dying: str
) -> None:
    part: Part = getattr(cluster, dying)
    work = Path(cluster.environment["LORA_ASSETS_HOME"]) / "work" / "evaluation"
    # As if nothing had been evaluated yet.
    shutil.rmtree(work)

    def kept(name: str) -> list[str]:
        return [line for path in work.glob(f"*/{name}") for line in path.read_text().splitlines()]

    journal = "grades.jsonl" if dying == "judge" else "answers-candidate.jsonl"
    cause = f"s3://{BUCKET}" if dying == "s3" else part.url
    refuse(cluster, run, EVALUATE, cause, dies_when(part, lambda: len(kept(journal)) >= 5))
    answered, graded = kept("answers-candidate.jsonl"), kept("grades.jsonl")
    asked = completions(cluster)
    succeed(run, *EVALUATE)
    answers, grades = kept("answers-candidate.jsonl"), kept("grades.jsonl")
    assert answers[: len(answered)] == answered
    assert grades[: len(graded)] == graded
    assert len(answers) == len(grades) == len({json.loads(line)["key"] for line in grades})
    # Without S3 the evaluation was finished and not recorded: a few of its answers are proved.
    proofs = PROOFS if dying == "s3" else 0
    assert completions(cluster) - asked == len(answers) - len(answered) + proofs


@pytest.mark.parametrize("dying", ["vllm", "prometheus"])
def test_a_part_dies_in_the_load_test_and_the_next_run_measures_again(
    cluster: Cluster, run: Run, staged: None, dying: str
) -> None:
    part: Part = getattr(cluster, dying)
    asked = completions(cluster)
    death = dies_when(part, lambda: completions(cluster) >= asked + 3)
    refuse(cluster, run, PERFORMANCE, part.url, death)
    succeed(run, *PERFORMANCE)
    assert "perf-passed" in cluster.resources.registry.aliases()


def test_a_data_version_in_the_bucket_never_changes(cluster: Cluster, run: Run) -> None:
    build(run, DATA_VERSION, "sqs")
    build(run, DATA_VERSION, "sqs")
    other = ("data", "build", "--data-version", DATA_VERSION, "--services", "sns")
    refuse(cluster, run, other, f"exists in s3://{BUCKET} with other content")


def test_dagster_s_database_is_not_there_and_the_same_command_works_once_it_is_back(
    cluster: Cluster, run: Run, staged: None
) -> None:
    database = cluster.postgresql
    cause = f"port {database.port} failed: Connection refused"
    refuse(cluster, run, ("deploy",), cause, database.killed())
    succeed(run, "deploy")
