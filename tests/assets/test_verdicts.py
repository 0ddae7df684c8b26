from typing import Any

from lora_assets.assets.verdicts import check_result
from lora_assets.lifecycle import GateName
from lora_assets.records.verdict import Check, Verdict


def verdict(gate: GateName, *checks: Check, compared_with: str | None = None) -> Verdict:
    return Verdict(
        gate=gate,
        digest="c" * 64,
        compared_with=compared_with,
        data_version="1",
        data_digest="d" * 64,
        judge=None,
        thresholds={},
        checks=checks,
        faults=(),
        evidence_run_id=None,
        decided_at="2026-01-01T00:00:00+00:00",
    )


def rows(result: Any) -> list[dict[str, object]]:
    return [dict(record.data) for record in result.metadata["checks"].records]


def test_a_gate_is_shown_as_numbers_limits_and_margins() -> None:
    result = check_result(
        verdict(
            "quality_gate",
            Check(name="eval_loss", measured=2.5, comparison="<=", limit=1.0),
            Check(name="perplexity", measured=None, comparison="<=", limit=2.0),
        )
    )
    assert not result.passed
    assert rows(result) == [
        {
            "check": "eval_loss",
            "measured": "2.5000",
            "must be": "<= 1.0000",
            "margin": "-1.5000",
            "verdict": "FAILED",
        },
        {
            "check": "perplexity",
            "measured": "missing",
            "must be": "<= 2.0000",
            "margin": "missing",
            "verdict": "FAILED",
        },
    ]


def test_only_a_gate_that_compares_says_with_what() -> None:
    check = Check(name="a_rate", measured=0.8, comparison=">=", limit=0.7)
    assert "compared with" not in check_result(verdict("quality_gate", check)).metadata
    first = check_result(verdict("eval_gate", check)).metadata["compared with"]
    assert first.value == "nothing live"
    later = check_result(verdict("eval_gate", check, compared_with="l" * 64)).metadata
    assert later["compared with"].value == "l" * 64
