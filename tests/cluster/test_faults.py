"""A part that is not there, refuses, or dies half-way: one line, and nothing lost or changed."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient
from prometheus_client.parser import text_string_to_metric_families

from tests.support.cluster import BUCKET, Cluster
from tests.support.cluster_parts import Part
from tests.support.cluster_stages import (
    EVALUATE,
    PERFORMANCE,
    Run,
    build,
    succeed,
    train,
    training,
)
from tests.support.commands import Ended
from tests.support.stack import free_port

pytestmark = pytest.mark.e2e

DATA_VERSION = "0"


@pytest.fixture(scope="module")
def nowhere() -> str:
    """A URL where nothing listens."""
    return f"http://127.0.0.1:{free_port()}"


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
    cluster: Cluster,
    run: Run,
    staged: None,
    nowhere: str,
    arguments: tuple[str, ...],
    variable: str,
    value: str,
    cause: str,
) -> None:
    mlflow = cluster.mlflow.url
    other_host = mlflow.replace("127.0.0.1", "localhost")
    urls = {"nowhere": nowhere, "mlflow": mlflow, "other_host": other_host}
    before = state(cluster)
    ended = run(*arguments, **{variable: value.format(**urls)})
    require_one_line(ended, cause.format(**urls))
    assert state(cluster) == before


@pytest.mark.parametrize(
    ("split", "spoil", "cause"),
    [
        ("train", lambda content: content[:-20], "is truncated"),
        ("eval", lambda content: None, "has no s3://"),
        ("train", lambda content: b"", "is empty"),
        ("eval", lambda content: b"\xff" + content, "is not UTF-8"),
    ],
)
def test_a_broken_split_in_the_bucket_is_named_and_nothing_is_recorded(
    cluster: Cluster,
    run: Run,
    staged: None,
    tmp_path: Path,
    split: str,
    spoil: Callable[[bytes], bytes | None],
    cause: str,
) -> None:
    store = cluster.resources.data_bucket.store
    for name in ("train", "val", "eval"):
        content = store.get(f"data/processed/{DATA_VERSION}/{name}.jsonl")
        assert content is not None
        kept = spoil(content) if name == split else content
        if kept is not None:
            store.put(f"data/processed/broken-{tmp_path.name}/{name}.jsonl", kept)
    before = state(cluster)
    ended = run(*training(f"broken-{tmp_path.name}", "1e-4"))
    require_one_line(ended, cause)
    assert f"broken-{tmp_path.name}/{split}.jsonl" in str(ended.code)
    assert state(cluster) == before


@contextmanager
def dies_when(part: Part, condition: Callable[[], bool]) -> Iterator[None]:
    """Kill the part, within the block, as soon as the condition holds; start it again after it."""
    over = Event()

    def watch() -> None:
        while not over.wait(0.02):
            if condition():
                part.kill()
                return

    watcher = Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        assert part.process is not None
        died = part.process.poll() is not None
        if died:
            part.start()
    assert died, f"{part.name} was never killed"


def completions(cluster: Cluster) -> int:
    """How many requests the model server has answered since its start."""
    text = httpx.get(f"{cluster.vllm.url}/metrics").text
    return sum(
        int(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "vllm:request_success_total"
    )


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
    assert "trained 2 of 14 steps" in first.err
    assert "trained 2 of 14 steps" not in second.err
    candidate = cluster.resources.registry.resolve("alias:candidate")
    assert candidate.data_version == "0.1"
    client = MlflowClient(cluster.mlflow.url)
    experiment = client.get_run(candidate.run_id).info.experiment_id
    runs = client.search_runs([experiment], "tags.`data.version` = '0.1'")
    assert [found.info.status for found in runs] == ["FINISHED"]


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
    before = state(cluster)
    with dies_when(part, lambda: len(kept(journal)) >= 5):
        ended = run(*EVALUATE)
    require_one_line(ended, f"s3://{BUCKET}" if dying == "s3" else part.url)
    assert state(cluster) == before
    answered, graded = kept("answers-candidate.jsonl"), kept("grades.jsonl")
    asked = completions(cluster)
    succeed(run, *EVALUATE)
    answers, grades = kept("answers-candidate.jsonl"), kept("grades.jsonl")
    assert answers[: len(answered)] == answered
    assert grades[: len(graded)] == graded
    assert len(answers) == len(grades) == len({json.loads(line)["key"] for line in grades})
    assert completions(cluster) - asked == len(answers) - len(answered)


@pytest.mark.parametrize("dying", ["vllm", "prometheus"])
def test_a_part_dies_in_the_load_test_and_the_next_run_measures_again(
    cluster: Cluster, run: Run, staged: None, dying: str
) -> None:
    part: Part = getattr(cluster, dying)
    before = state(cluster)
    asked = completions(cluster)
    with dies_when(part, lambda: completions(cluster) >= asked + 3):
        ended = run(*PERFORMANCE)
    require_one_line(ended, part.url)
    assert state(cluster) == before
    succeed(run, *PERFORMANCE)
    assert "perf-passed" in cluster.resources.registry.aliases()


def test_a_data_version_in_the_bucket_never_changes(cluster: Cluster, run: Run) -> None:
    build(run, DATA_VERSION, "sqs")
    build(run, DATA_VERSION, "sqs")
    before = state(cluster)
    ended = run("data", "build", "--data-version", DATA_VERSION, "--services", "sns")
    require_one_line(ended, f"exists in s3://{BUCKET} with other content")
    assert state(cluster) == before


def test_dagster_s_database_is_not_there_and_the_same_command_works_once_it_is_back(
    cluster: Cluster, run: Run, staged: None
) -> None:
    before = state(cluster)
    with cluster.postgresql.killed():
        ended = run("deploy")
    require_one_line(ended, f"port {cluster.postgresql.port} failed: Connection refused")
    assert state(cluster) == before
    succeed(run, "deploy")
