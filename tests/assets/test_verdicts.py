from typing import Any

from lora_assets.assets.verdicts import check_result
from lora_assets.lifecycle import GATES
from lora_assets.records.verdict import Check, GateName, Verdict
from tests.support.records import model_version, passed_verdict


def verdict(gate: GateName, *checks: Check, compared_with: str | None = None) -> Verdict:
    return passed_verdict(gate, model_version(), None, checks=checks, compared_with=compared_with)


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
    columns = ["check", "measured", "must be", "margin", "unit", "verdict"]
    assert [list(row) for row in rows(result)] == [columns, columns]
    assert [list(row.values()) for row in rows(result)] == [
        ["eval_loss", "2.5", "<= 1", "-1.5", "nats per token", "FAILED"],
        ["perplexity", "missing", "<= 2", "missing", "", "FAILED"],
    ]


def test_a_gates_page_opens_with_the_outcome_and_its_numbers_can_be_plotted() -> None:
    passed, failed = Check.at_least("a_rate", 0.8, 0.7), Check.at_most("c_rate", 1600.0, 0.1)
    metadata: Any = check_result(verdict("eval_gate", passed, failed)).metadata
    first = min(metadata)
    assert (first, metadata[first].value) == (
        "Summary",
        f"**eval_gate FAILED for data version 1** ({'c' * 12}): c_rate 1600 (must be <= 0.1); "
        f"a_rate 0.8 (must be >= 0.7). Next: {GATES['eval_gate'].remedy}",
    )
    plotted = {name: metadata[name].value for name in ("a_rate margin", "c_rate", "c_rate margin")}
    assert plotted == {"a_rate margin": 0.1, "c_rate": 1600.0, "c_rate margin": -1599.9}
    one = check_result(verdict("eval_gate", passed)).metadata["Summary"].value
    assert str(one).endswith("Next: perf_metrics, by this run or by 'lora-assets performance'.")


def test_what_a_server_said_is_no_markup_on_a_gates_page() -> None:
    said = "The judge at http://[fe80::1]:80 answered ![x](http://evil)"
    faulty = verdict("eval_gate", Check.at_least("a_rate", None, 0.7)).model_copy(
        update={"faults": (said,)}
    )
    (shown,) = [check_result(faulty).metadata["Summary"].value]
    assert r"http://\[fe80::1\]:80 answered !\[x\](http://evil)" in str(shown)
    assert str(check_result(faulty).description).startswith(f"inconclusive; {said}; ")


def test_only_a_gate_that_compares_says_with_what() -> None:
    check = Check.at_least("a_rate", 0.8, 0.7)
    assert "compared with" not in check_result(verdict("quality_gate", check)).metadata
    first = check_result(verdict("eval_gate", check)).metadata["compared with"]
    assert first.value == "live: nothing"
    later = check_result(verdict("eval_gate", check, compared_with="l" * 64)).metadata
    assert (later["compared with"].value, later["digest"].value) == (f"live: {'l' * 12}", "c" * 64)
