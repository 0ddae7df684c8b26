import pytest

from lora_assets.gates.smoke import REQUESTS, SmokeAnswer, SmokeThresholds, smoke_test
from lora_assets.records.verdict import Verdict
from tests.support.records import NOW, model_version


def answer(text: str = "Returns a list.", latency: float = 1.0) -> SmokeAnswer:
    return SmokeAnswer(text=text, latency=latency)


def decide(*answers: SmokeAnswer, of_b: int = REQUESTS, **thresholds: float) -> Verdict:
    by_replica = {"a": answers, "b": [answer()] * of_b}
    return smoke_test(model_version(), by_replica, SmokeThresholds(**thresholds), "", NOW)


def test_answers_with_text_within_the_limit_pass_and_it_is_a_parameter() -> None:
    verdict = decide(*[answer(latency=30.0)] * REQUESTS)
    assert verdict.passed
    assert verdict.thresholds == {"requests": 3, "max_smoke_seconds": 30.0}
    assert decide(*[answer(latency=40.0)] * REQUESTS, max_smoke_seconds=60.0).passed


@pytest.mark.parametrize(
    ("wrong", "failure"),
    [
        (answer("!!!!!!!"), "non-empty answers of a 2 (must be >= 3)"),
        (answer(" \n"), "non-empty answers of a 2 (must be >= 3)"),
        (answer(latency=30.1), "slowest answer of a 30.1 (must be <= 30)"),
    ],
)
def test_one_answer_without_words_or_a_slow_one_fails(wrong: SmokeAnswer, failure: str) -> None:
    assert decide(*[answer()] * (REQUESTS - 1), wrong).failures == (failure,)


def test_every_replica_must_answer_every_request() -> None:
    every_one = [answer()] * REQUESTS
    assert decide(*every_one, of_b=2).failures == ("non-empty answers of b 2 (must be >= 3)",)
    assert decide(*every_one, of_b=0).failures == (
        "non-empty answers of b 0 (must be >= 3)",
        "slowest answer of b missing (must be <= 30)",
    )
