"""What a data version needs next, decided on what is known of it."""

from collections.abc import Sequence

import pytest

from lora_assets.automation import next_run
from lora_assets.automation.next_run import MAX_ATTEMPTS, SECONDS_BETWEEN_ATTEMPTS, Attempts
from lora_assets.lifecycle import STAGES
from lora_assets.records.progress import Progress

ORDER = list(STAGES)
LATE = SECONDS_BETWEEN_ATTEMPTS + 1
ONCE = Attempts(launched=1, since_last=LATE, last_was_cancelled=False, waits_for_dagster=False)
GATED = {asset: stage.gate.name for asset, stage in STAGES.items() if stage.gate is not None}


def after(last: str | None, version: str = "2", **changes: object) -> Progress:
    """A data version of which everything up to and with `last` is made and passed."""
    assets = ORDER[: ORDER.index(last) + 1] if last else []
    passed = {gate.name: True for asset in assets if (gate := STAGES[asset].gate) is not None}
    made = {asset: number for number, asset in enumerate(assets, start=10)}
    known = {"data_version": version, "made": made, "verdicts": passed, "baseline_event_id": None}
    return Progress.model_validate(known | changes)


def needs(progress: Progress, live: str | None = None) -> list[str] | None:
    run = next_run.next_run(progress, live, automatic=True)
    return None if run is None else list(run.assets)


def data_versions(found: Sequence[Progress | next_run.NextRun]) -> list[str]:
    return [each.data_version for each in found]


@pytest.mark.parametrize("last", ORDER[:-1])
def test_a_version_that_was_cut_short_goes_on_with_what_is_missing(last: str) -> None:
    assert (needs(after(last)) or [""])[0] == ORDER[ORDER.index(last) + 1]


@pytest.mark.parametrize("asset", GATED)
def test_a_failed_gate_stops_its_version_and_an_undecided_one_is_run_again(asset: str) -> None:
    passed = after(asset)
    gate = GATED[asset]
    failed = after(asset, verdicts={**passed.verdicts, gate: False})
    assert needs(failed) is None
    assert next_run.stopped_by(failed) == gate
    undecided = {name: v for name, v in passed.verdicts.items() if name != gate}
    assert (needs(after(asset, verdicts=undecided)) or [""])[0] == asset


def test_a_better_adapter_takes_a_stopped_version_further() -> None:
    stopped = after("eval_grades")
    verdicts = {**stopped.verdicts, "eval_gate": False}
    retrained = after("eval_grades", verdicts=verdicts, made={**stopped.made, "adapter": 99})
    assert needs(retrained) == ["gate_result"]


def test_an_older_version_is_judged_but_does_not_replace_a_newer_one() -> None:
    assert needs(after("gate_result", version="9"), live="10") == ORDER[3:-1]
    assert needs(after("perf_metrics", version="9"), live="10") is None


def test_a_version_that_was_live_once_is_not_promoted_again_by_itself() -> None:
    made = {**after("live_deployment").made, "eval_grades": 99}
    assert needs(after("live_deployment", version="3", made=made), live="2") == ["perf_metrics"]


def test_what_was_there_before_the_sensor_is_left_alone_until_somebody_works_on_it() -> None:
    assert needs(after(None, baseline_event_id=5)) is None
    assert needs(after("adapter", baseline_event_id=50)) is None
    assert needs(after("adapter", baseline_event_id=5)) == ["gate_result"]


def test_only_versions_past_every_gate_and_newer_than_live_wait_newest_first() -> None:
    made = {**after("perf_metrics").made, "adapter": 98, "gate_result": 99}
    versions = [
        after("perf_metrics", version="9"),
        after("perf_metrics", version="11"),
        after("perf_metrics", version="10"),
        after("live_deployment", version="12"),
        after("eval_grades", version="13"),
        after("perf_metrics", version="14", verdicts={"perf_gate": False}),
        after("perf_metrics", version="15", made=made),
        after("perf_metrics", version="16", baseline_event_id=50),
    ]
    assert data_versions(next_run.waiting_for_promotion(versions, "9")) == ["11", "10", "9"]
    assert data_versions(next_run.waiting_for_promotion(versions, "10")) == ["11", "10"]


def test_a_comparison_with_a_replaced_live_is_made_again_once_per_live() -> None:
    waiting = after("perf_metrics")
    a, b, c = ("a" * 64, "b" * 64, "c" * 64)
    assert next_run.compare_again(waiting, [a, a], a, True) is None
    other = next_run.compare_again(waiting, [a, a], c, False)
    assert other is not None
    assert other.assets == ("eval_grades", "perf_metrics")
    # Nor with evaluation and load test held against two different live versions.
    for compared_with, live in (([a, a], b), ([a, b], a), ([a, None], a)):
        again = next_run.compare_again(waiting, compared_with, live, True)
        assert again is not None
        assert again.assets == ("eval_grades", "perf_metrics", "live_deployment")
        assert again.cause != other.cause


def test_the_newest_is_served_alone_while_others_train() -> None:
    wanted = [
        run
        for version, last in (("1", "gate_result"), ("2", None), ("10", "gate_result"), ("3", None))
        if (run := next_run.next_run(after(last, version=version), None, True)) is not None
    ]
    for serving, most, launched in (
        (False, 9, ["10", "2", "3"]),
        (True, 9, ["2", "3"]),
        (False, 2, ["10", "2"]),
    ):
        assert data_versions(next_run.launches(wanted, serving, most)) == launched


@pytest.mark.parametrize(
    ("changes", "reason", "needs_a_person"),
    [
        ({}, None, False),
        ({"since_last": 0}, "waits before the next attempt", False),
        ({"launched": MAX_ATTEMPTS}, "gave up after 3 runs", True),
        ({"last_was_cancelled": True}, "was cancelled", True),
        ({"launched": MAX_ATTEMPTS, "waits_for_dagster": True}, "is tried again by Dagster", False),
    ],
)
def test_a_run_is_tried_again_some_time_later_and_not_for_ever_nor_beside_dagster(
    changes: dict[str, object], reason: str | None, needs_a_person: bool
) -> None:
    tried = ONCE.model_copy(update=changes)
    assert next_run.may_launch(tried, stopped_by_a_person=False) == reason
    assert next_run.needs_manual_relaunch(tried) == needs_a_person
