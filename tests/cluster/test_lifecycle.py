"""Two data versions, from nothing to live, through the whole graph in its cluster wiring."""

import json
from typing import Any

import pytest

from tests.cluster.conftest import Cluster, Run

# Wiring is what is tested here: a training as short as can be, and a second one that is better.
SHORT = ("--quantization", "none", "--batch-size", "8", "--gradient-accumulation-steps", "1")
FIRST = (*SHORT, "--evaluations", "1", "--learning-rate", "1e-3", "--max-perplexity", "1000")
SECOND = (*SHORT, "--evaluations", "1", "--learning-rate", "3e-3", "--max-perplexity", "1000")
ANY_LOSS = ("--max-eval-loss", "100")
ANY_ANSWER = ("--min-a-rate", "0", "--max-c-rate", "1", "--min-refusal-rate", "0")
ANY_SPEED = ("--max-p95-latency", "600", "--max-p95-ttft", "600", "--min-throughput", "0")
NO_WORSE_THAN = ("--latency-regression-factor", "100", "--throughput-regression-factor", "0")


def status(run: Run) -> Any:
    ended = run("status", "--json")
    assert ended.code == 0
    return json.loads(ended.out)


def build(run: Run, data_version: str, services: str) -> None:
    assert run("data", "build", "--data-version", data_version, "--services", services).code == 0


def evaluate_and_promote(run: Run) -> None:
    for command in (
        ("deploy",),
        ("evaluate", *ANY_ANSWER),
        ("performance", "--max-samples", "20", *ANY_SPEED, *NO_WORSE_THAN),
        ("promote", "--source-alias", "perf-passed"),
    ):
        ended = run(*command)
        assert ended.code == 0, ended


@pytest.fixture(scope="module")
def _parts(cluster: Cluster) -> Cluster:
    return cluster


def test_two_versions_from_nothing_to_live_and_back(cluster: Cluster, run: Run) -> None:
    build(run, "1", "sqs")
    ended = run("train", "--data-version", "1", *FIRST, *ANY_LOSS)
    assert ended.code == 0, ended
    evaluate_and_promote(run)
    first = status(run)
    print(first)
    build(run, "2", "sqs,sns")
    assert run("train", "--data-version", "2", *SECOND, *ANY_LOSS).code == 0
    evaluate_and_promote(run)
    second = status(run)
    print(second)
    assert run("rollback").code == 0
    print(status(run))
