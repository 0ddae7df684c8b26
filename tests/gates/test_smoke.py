import pytest

from lora_assets.gates.smoke import REQUESTS, SmokeAnswer, SmokeThresholds, smoke_test
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.verdict import Verdict

VERSION = ModelVersion(
    model="model",
    version=1,
    digest="c" * 64,
    data_version="1",
    data_digest="e" * 64,
    run_id="run",
)


def answer(text: str = "Returns a list.", latency: float = 1.0, of: str = "a") -> SmokeAnswer:
    return SmokeAnswer(replica=of, text=text, latency=latency)


def decide(*answers: SmokeAnswer, **thresholds: float) -> Verdict:
    replicas = sorted({"a", *(each.replica for each in answers)})
    return smoke_test(VERSION, replicas, answers, SmokeThresholds(**thresholds), "now")


def test_answers_with_text_within_the_limit_pass() -> None:
    verdict = decide(*[answer(latency=30.0)] * REQUESTS)
    assert verdict.passed
    assert verdict.thresholds == {"requests": 3, "max_smoke_seconds": 30.0}


@pytest.mark.parametrize(
    ("wrong", "failure"),
    [
        (answer(" \n"), "non-empty answers of a 2 (must be >= 3)"),
        (answer(latency=30.1), "slowest answer of a 30.1 (must be <= 30)"),
    ],
)
def test_one_empty_or_slow_answer_fails(wrong: SmokeAnswer, failure: str) -> None:
    assert decide(*[answer()] * (REQUESTS - 1), wrong).failures == (failure,)


def test_every_replica_must_answer_every_request() -> None:
    all_of_one = [answer(of="b")] * REQUESTS
    incomplete = decide(*all_of_one, *[answer()] * (REQUESTS - 1))
    assert incomplete.failures == ("non-empty answers of a 2 (must be >= 3)",)
    assert decide(*all_of_one).failures == (
        "non-empty answers of a 0 (must be >= 3)",
        "slowest answer of a missing (must be <= 30)",
    )


def test_the_limit_is_a_parameter() -> None:
    slow = [answer(latency=40.0)] * REQUESTS
    assert decide(*slow, max_smoke_seconds=60.0).passed
