import math

import pytest

from lora_assets.gates.policy import SPECIFICATION, reasons_of_policy
from lora_assets.gates.quality import QualityThresholds, quality_gate
from lora_assets.records.verdict import Verdict
from tests.support.records import NOW, trained_adapter


def decide(loss: float | None, perplexity: float | None, **thresholds: float) -> Verdict:
    adapter = trained_adapter(loss=loss, perplexity=perplexity)
    return quality_gate(adapter, QualityThresholds(**thresholds), NOW)


def test_numbers_at_their_limits_pass_and_either_above_it_fails() -> None:
    assert decide(1.0, 2.0).passed
    assert decide(1.001, 2.0).failures == ("eval_loss 1.001 (must be <= 1)",)
    assert decide(1.0, 2.001).failures == ("perplexity 2.001 (must be <= 2)",)


@pytest.mark.parametrize("bad", [None, math.nan, -math.inf, math.inf])
def test_a_metric_that_is_missing_or_not_finite_fails(bad: float | None) -> None:
    assert not decide(bad, 1.0).passed
    assert not decide(0.1, bad).passed


def test_thresholds_are_parameters_and_part_of_the_evidence() -> None:
    verdict = decide(0.9, 2.5, max_eval_loss=0.95, max_perplexity=3.0)
    assert verdict.passed
    assert {"max_eval_loss": 0.95, "max_perplexity": 3.0}.items() <= verdict.thresholds.items()
    assert verdict.digest == "d" * 64
    assert "max_leak" not in verdict.thresholds


def test_a_policy_knows_how_many_leaked_rows_the_data_of_a_training_were_allowed() -> None:
    trained = trained_adapter().model_copy(update={"max_leak": 7})
    verdict = quality_gate(trained, QualityThresholds(), NOW)
    (reason,) = reasons_of_policy({"quality_gate": verdict}, "staged", SPECIFICATION, NOW)
    assert reason == "quality_gate was made with max-leak 7, the policy asks for 0"


def test_a_verdict_with_nan_survives_its_storage() -> None:
    verdict = decide(math.nan, 1.0)
    again = Verdict.model_validate_json(verdict.model_dump_json())
    assert again.failures == verdict.failures
    assert not again.passed


@pytest.mark.parametrize(("split", "rows"), [("train", 200), ("val", 20)])
def test_a_split_of_which_too_much_was_left_out_fails_by_name(split: str, rows: int) -> None:
    trained = trained_adapter()

    def decided(left_out: int, **thresholds: float) -> Verdict:
        lost = {"rows_left_out": {split: tuple(range(left_out))}, "split_rows": {split: rows}}
        adapter = trained.model_copy(update={"metrics": trained.metrics.model_copy(update=lost)})
        return quality_gate(adapter, QualityThresholds(**thresholds), NOW)

    assert decided(rows // 20).passed
    named = f"left out of {split} {(rows // 20 + 1) / rows:.4g} (must be <= 0.05)"
    assert decided(rows // 20 + 1).failures == (named,)
    assert decided(rows // 2, max_left_out=0.5).passed
