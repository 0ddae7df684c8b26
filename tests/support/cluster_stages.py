"""The stages as the cluster's tests run them: short, and past every gate.

The wiring is tested here. How good an adapter must be is tested elsewhere.
"""

import json
from collections.abc import Callable
from typing import Any

from tests.support.commands import Ended

Run = Callable[..., Ended]

SHORT = (
    *("--quantization", "none", "--batch-size", "8", "--gradient-accumulation-steps", "1"),
    *("--num-epochs", "1", "--evaluations", "2"),
    *("--max-eval-loss", "100", "--max-perplexity", "1000"),
)
ANY_ANSWER = ("--min-a-rate", "0", "--max-c-rate", "1", "--min-refusal-rate", "0")
ANY_SPEED = (
    *("--max-p95-latency", "600", "--max-p95-ttft", "600", "--min-throughput", "0"),
    *("--latency-regression-factor", "100", "--throughput-regression-factor", "0"),
)
EVALUATE = ("evaluate", *ANY_ANSWER)
PERFORMANCE = ("performance", "--max-samples", "20", *ANY_SPEED)


def succeed(run: Run, *arguments: str) -> Ended:
    ended = run(*arguments)
    assert ended.code == 0, ended
    return ended


def build(run: Run, data_version: str, services: str) -> None:
    succeed(run, "data", "build", "--data-version", data_version, "--services", services)


def training(data_version: str, learning_rate: str) -> tuple[str, ...]:
    """Return the command that trains."""
    return ("train", "--data-version", data_version, "--learning-rate", learning_rate, *SHORT)


def train(run: Run, data_version: str, learning_rate: str) -> None:
    succeed(run, *training(data_version, learning_rate))


def gate_and_promote(run: Run) -> None:
    succeed(run, "deploy")
    succeed(run, *EVALUATE)
    succeed(run, *PERFORMANCE)
    succeed(run, "promote", "--source-alias", "perf-passed")


def status(run: Run) -> Any:
    return json.loads(succeed(run, "status", "--json").out)
