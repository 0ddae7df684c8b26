import pytest

from lora_assets.records.verdict import Check, Comparison


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


def test_a_missing_number_has_no_margin() -> None:
    assert Check(name="number", measured=None, comparison="<=", limit=1.0).margin is None
