from typing import Any

from lora_assets.assets.verdicts import check_result
from lora_assets.records.verdict import Check, GateName, Verdict
from tests.support.records import model_version, passed_verdict


def verdict(gate: GateName, *checks: Check, compared_with: str | None = None) -> Verdict:
    changes = {"checks": checks, "compared_with": compared_with}
    return passed_verdict(gate, model_version(), None).model_copy(update=changes)


def rows(result: Any) -> list[dict[str, object]]:
    return [dict(record.data) for record in result.metadata["checks"].records]


def test_a_gate_is_shown_as_numbers_limits_and_margins() -> None:
    result = check_result(
        verdict(
            "quality_gate",
            Check.at_most("eval_loss", 2.5, 1.0),
            Check.at_most("perplexity", None, 2.0),
        )
    )
    assert not result.passed
    columns = ["check", "measured", "must be", "margin", "verdict"]
    assert [list(row) for row in rows(result)] == [columns, columns]
    assert [list(row.values()) for row in rows(result)] == [
        ["eval_loss", "2.5000", "<= 1.0000", "-1.5000", "FAILED"],
        ["perplexity", "missing", "<= 2.0000", "missing", "FAILED"],
    ]


def test_only_a_gate_that_compares_says_with_what() -> None:
    check = Check.at_least("a_rate", 0.8, 0.7)
    assert "compared with" not in check_result(verdict("quality_gate", check)).metadata
    first = check_result(verdict("eval_gate", check)).metadata["compared with"]
    assert first.value == "nothing live"
    later = check_result(verdict("eval_gate", check, compared_with="l" * 64)).metadata
    assert later["compared with"].value == "l" * 64
