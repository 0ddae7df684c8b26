import pytest

from lora_assets.gates.promotion import outlook, reasons_against, required_gates
from lora_assets.lifecycle import GateName
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.verdict import Check, Verdict


def model_version(number: int, data_version: str, digest: str) -> ModelVersion:
    return ModelVersion(
        model="m",
        version=number,
        digest=digest * 64,
        data_version=data_version,
        data_digest="e" * 64,
        run_id="run",
    )


CANDIDATE = model_version(2, "2", "c")
LIVE = model_version(1, "1", "l")


def verdict(
    gate: GateName, measured: float = 1.0, digest: str = "c", compared_with: str | None = "l"
) -> Verdict:
    return Verdict(
        gate=gate,
        digest=digest * 64,
        compared_with=compared_with and compared_with * 64,
        data_version="2",
        data_digest="e" * 64,
        checks=(Check.at_least("number", measured, 1.0),),
        decided_at="2026-01-01T00:00:00+00:00",
    )


GATES = [gate.name for gate in required_gates("staged")]


def all_passed() -> dict[GateName, Verdict]:
    return {gate: verdict(gate) for gate in GATES}


def test_a_candidate_with_every_verdict_may_become_live() -> None:
    assert reasons_against(CANDIDATE, LIVE, all_passed(), "staged", False) == ()


@pytest.mark.parametrize("gate", GATES)
def test_a_missing_a_failed_or_a_foreign_verdict_stands_against_it(gate: GateName) -> None:
    others = {name: verdict for name, verdict in all_passed().items() if name != gate}
    for changed, reason in (
        ({}, f"{gate} has no verdict"),
        ({gate: verdict(gate, measured=0.0)}, f"{gate} failed: number 0 (must be >= 1)"),
        ({gate: verdict(gate, digest="x")}, f"{gate} judged adapter {'x' * 12}, not {'c' * 12}"),
    ):
        verdicts = others | changed
        assert reasons_against(CANDIDATE, LIVE, verdicts, "perf-passed", False) == (reason,)


@pytest.mark.parametrize("gate", ["eval_gate", "perf_gate"])
@pytest.mark.parametrize("compared_with", ["x", None])
def test_a_comparison_with_what_is_no_longer_live_has_lapsed(
    gate: GateName, compared_with: str | None
) -> None:
    verdicts = all_passed() | {gate: verdict(gate, compared_with=compared_with)}
    (reason,) = reasons_against(CANDIDATE, LIVE, verdicts, "staged", False)
    before = compared_with * 12 if compared_with else "nothing"
    assert reason == f"{gate} compared with {before}, but live is now {'l' * 12}"


def test_eval_passed_asks_for_no_load_test_but_for_everything_else() -> None:
    verdicts = all_passed()
    del verdicts["perf_gate"]
    assert reasons_against(CANDIDATE, LIVE, verdicts, "eval-passed", False) == ()
    staged = reasons_against(CANDIDATE, LIVE, verdicts, "staged", False)
    assert staged == ("perf_gate has no verdict",)


def test_an_older_data_version_replaces_a_newer_one_only_when_asked() -> None:
    newer_live = LIVE.model_copy(update={"data_version": "10"})
    assert reasons_against(CANDIDATE, newer_live, all_passed(), "staged", False)
    assert reasons_against(CANDIDATE, newer_live, all_passed(), "staged", True) == ()


def test_a_rollback_needs_no_verdict_and_may_go_back() -> None:
    newer_live = LIVE.model_copy(update={"data_version": "10"})
    assert reasons_against(CANDIDATE, newer_live, {}, "previous", False) == ()


def test_the_outlook_says_what_a_promotion_would_do() -> None:
    assert outlook(None, ()) == "It would become the first live version."
    assert outlook(LIVE, ()) == "It would replace version 1 (data version 1)."
    refused = outlook(LIVE, ("eval_gate has no verdict", "perf_gate has no verdict"))
    assert refused == "It would be refused: eval_gate has no verdict; perf_gate has no verdict"
