"""The stages as the cluster's tests run them: short, and past every gate.

The wiring is tested here. How good an adapter must be is tested elsewhere.
"""

import json
from collections.abc import Callable
from typing import Any

from tests.support.commands import Ended
from tests.support.policies import ANY_ANSWER, ANY_SPEED, ANY_TRAINING, options

Run = Callable[..., Ended]

SHORT = (
    *("--quantization", "none", "--batch-size", "8", "--gradient-accumulation-steps", "1"),
    *("--num-epochs", "1", "--evaluations", "2"),
    *options(ANY_TRAINING),
)
EVALUATE = ("evaluate", *options(ANY_ANSWER))
PERFORMANCE = ("performance", "--max-samples", "20", *options(ANY_SPEED))


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
