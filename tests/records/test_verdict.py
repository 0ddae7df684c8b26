import pytest

from lora_assets.records.verdict import Check, Comparison, gate_note, run_link
from tests.support.records import model_version, passed_verdict


@pytest.mark.parametrize(
    ("comparison", "measured", "margin"),
    [("<=", 0.75, 0.25), ("<", 1.5, -0.5), (">=", 1.5, 0.5), (">", 0.75, -0.25), ("<=", 1.0, 0.0)],
)
def test_a_margin_is_positive_inside_the_limit_and_negative_outside(
    comparison: Comparison, measured: float, margin: float
) -> None:
    check = Check(name="number", measured=measured, comparison=comparison, limit=1.0)
    assert check.margin == margin
    assert check.passed == (margin >= 0)


def test_a_description_leads_to_the_run_that_decided_and_keeps_who_made_it() -> None:
    decided = passed_verdict("eval_gate", model_version(), None, dagster_run="r2")
    made_by = run_link("http://ui/", "r1")
    note = gate_note([decided], made_by, "http://ui/")
    first, blank, *table = note.splitlines()
    assert (first, blank) == ("[Dagster run](http://ui/runs/r1)", "")
    assert table[2].startswith(f"| [{decided.gate}](http://ui/runs/r2) | ")
    assert table[-1].startswith("report.html among the training's artifacts ")
    assert "`lora-assets report --data-version 1`" in table[-1]
    assert gate_note([decided], note, "http://ui") == note
    assert "http" not in gate_note([decided], None)
    assert gate_note([decided], "Mine.", "http://ui") == "Mine."
