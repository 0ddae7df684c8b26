import pytest

from lora_assets.gates.promotion import Case, outlook, required_gates
from lora_assets.records import short
from lora_assets.records.verdict import Check, GateName, Verdict
from tests.support.records import model_version, passed_verdict

CANDIDATE = model_version(2, "2", "c" * 64)
LIVE = model_version(1, "1", "l" * 64)
NEWER_LIVE = model_version(1, "10", "l" * 64)
GATES = [gate.name for gate in required_gates("staged")]


def verdict(gate: GateName, **changes: object) -> Verdict:
    return passed_verdict(gate, CANDIDATE, LIVE, **changes)


def all_passed() -> dict[GateName, Verdict]:
    return {gate: verdict(gate) for gate in GATES}


@pytest.mark.parametrize("gate", GATES)
def test_a_missing_a_failed_or_a_foreign_verdict_stands_against_it(gate: GateName) -> None:
    others = {name: verdict for name, verdict in all_passed().items() if name != gate}
    failed = (Check.at_least("number", 0, 1),)
    for changed, reason in (
        ({}, "has no verdict"),
        ({gate: verdict(gate, checks=failed)}, "failed: number 0 (must be >= 1)"),
        ({gate: verdict(gate, digest="x" * 64)}, f"judged adapter {'x' * 12}, not {'c' * 12}"),
    ):
        verdicts = others | changed
        assert Case(CANDIDATE, LIVE, verdicts, "perf-passed").against == (f"{gate} {reason}",)


@pytest.mark.parametrize(
    ("judged", "now", "reasons"),
    [
        ("a" * 64, "a" * 64, ()),
        ("", "b" * 64, ()),
        ("a" * 64, "", ()),
        ("a" * 64, "b" * 64, (f"smoke_test judged it on base model {'a' * 12}, not {'b' * 12}",)),
    ],
)
def test_a_verdict_on_another_base_model_stands_against_it(
    judged: str, now: str, reasons: tuple[str, ...]
) -> None:
    verdicts = all_passed() | {"smoke_test": verdict("smoke_test", base=judged)}
    candidate = CANDIDATE.model_copy(update={"base": now})
    assert Case(candidate, LIVE, verdicts, "staged").against == reasons


@pytest.mark.parametrize("gate", ["eval_gate", "perf_gate"])
@pytest.mark.parametrize("compared_with", ["x" * 64, None])
def test_a_comparison_with_what_is_no_longer_live_has_lapsed(
    gate: GateName, compared_with: str | None
) -> None:
    verdicts = all_passed() | {gate: verdict(gate, compared_with=compared_with)}
    (reason,) = Case(CANDIDATE, LIVE, verdicts, "staged").against
    assert reason == f"{gate} compared with {short(compared_with)}, but live is now {'l' * 12}"


def test_eval_passed_asks_for_no_load_test_but_for_everything_else() -> None:
    verdicts = all_passed()
    del verdicts["perf_gate"]
    assert Case(CANDIDATE, LIVE, verdicts, "eval-passed").against == ()
    staged = Case(CANDIDATE, LIVE, verdicts, "staged").against
    assert staged == ("perf_gate has no verdict",)


def test_an_older_data_version_replaces_a_newer_one_only_when_asked() -> None:
    older = ("data version 2 is older than live 10",)
    assert Case(CANDIDATE, NEWER_LIVE, all_passed(), "staged").against == older
    assert Case(CANDIDATE, NEWER_LIVE, all_passed(), "staged", True).against == ()


def test_the_registration_tells_which_is_older_where_names_do_not() -> None:
    first, second = (
        model_version(number, name, "l" * 64) for number, name in ((1, "b2c3d4"), (9, "a1b2c3"))
    )
    candidate = model_version(3, "c3d4e5", "c" * 64)
    case = (all_passed(), "staged")
    assert Case(candidate, first, *case).against == ()
    assert Case(candidate, second, *case).against == (
        "data version c3d4e5 is older than live a1b2c3",
    )


def test_a_rollback_needs_no_verdict_and_may_go_back() -> None:
    assert Case(CANDIDATE, NEWER_LIVE, {}, "previous").against == ()


def test_the_outlook_says_what_a_promotion_would_do() -> None:
    assert outlook(None, ()) == "It would become the first live version."
    assert outlook(LIVE, ()) == "It would replace version 1 (data version 1)."
    refused = outlook(LIVE, ("eval_gate has no verdict", "perf_gate has no verdict"))
    assert refused == "It would be refused: eval_gate has no verdict; perf_gate has no verdict"
