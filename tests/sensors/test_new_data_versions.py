"""Each tick launches what is due, once, and leaves the rest alone."""

from pathlib import Path
from time import time

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus

from lora_assets.automation.argo_workflows import SECONDS_WITHOUT_A_RUN
from lora_assets.automation.next_run import CAUSE_TAG, MAX_ATTEMPTS
from lora_assets.lifecycle import STAGES
from lora_assets.local.dead_processes import PROCESS_TAG, living
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.run_tags import ARGO_WORKFLOW, PASSED_OVER, WORKFLOW_ENDS, workflow_end
from lora_assets.sensors import history
from tests.support.automated import Automated
from tests.support.backfills import requested

ORDER = list(STAGES)
TRAIN, SERVE = ORDER[:3], ORDER[3:]
BY_HAND = pytest.mark.parametrize(
    "automated", [{"LORA_ASSETS_PROMOTION": "manual"}], ids=["by hand"], indirect=True
)
"""Where promotion waits for a person."""


@pytest.fixture
def automated(
    tmp_path: Path, instance: dg.DagsterInstance, request: pytest.FixtureRequest
) -> Automated:
    return Automated(tmp_path, instance, **getattr(request, "param", {}))


@pytest.fixture
def on(automated: Automated) -> Automated:
    """The sensor, switched on over an empty bucket."""
    assert automated.wanted() == {}
    return automated


def test_what_is_no_data_version_is_passed_over_with_the_reason(on: Automated) -> None:
    on.put("half", splits=("train", "val"))
    assert "half is passed over: it lacks eval.jsonl" in on.reason()


def test_the_gates_go_with_their_assets_and_the_run_says_why(on: Automated) -> None:
    on.put("1")
    (request,) = on.tick().run_requests or ()
    assert {key.name for key in request.asset_check_keys or ()} == {"data_is_sound", "quality_gate"}
    assert request.tags["lora_assets/why"] == "training_data is missing"
    assert request.run_key == "1/training_data/0/1"


def test_what_was_there_when_it_was_switched_on_starts_only_when_somebody_works_on_it(
    automated: Automated,
) -> None:
    automated.put("1")
    automated.make("1", *TRAIN)
    automated.put("2")
    assert automated.wanted() == {}
    assert "2 present before the sensor was on" in automated.reason()
    automated.put("3")
    assert automated.wanted() == {"3": TRAIN}
    assert set(automated.instance.get_dynamic_partitions("data_version")) == {"1", "2", "3"}
    automated.make("1", *TRAIN)
    assert automated.wanted() == {"1": SERVE, "3": TRAIN}


def test_a_first_tick_that_crashes_is_simply_a_first_tick_again(automated: Automated) -> None:
    automated.put("1")
    automated.tick(crashes=True)
    assert automated.wanted() == {}
    assert automated.wanted() == {}


def test_a_tick_that_crashes_or_is_repeated_asks_for_the_same_run_again(on: Automated) -> None:
    on.put("1")
    keys = {r.run_key for _ in range(3) for r in on.tick(crashes=True).run_requests or ()}
    assert keys == {"1/training_data/0/1"}


def test_a_version_with_a_run_under_way_is_left_alone(on: Automated) -> None:
    run = on.start("1")
    for status in ("START", "CANCELING"):
        assert on.wanted() == {}
        report(on, run, status)
        assert on.wanted() == {}
    report(on, run, "SUCCESS")
    assert "1 waits" in on.reason()


def test_between_two_steps_a_version_is_left_to_its_workflow_until_that_ends_or_falls_silent(
    on: Automated, monkeypatch: pytest.MonkeyPatch
) -> None:
    on.put("1", "2")
    ended = dg.DagsterRunStatus.SUCCESS
    for version in ("1", "2"):
        on.run(version, status=ended, tags={ARGO_WORKFLOW: f"ml/train-{version}"})
    on.make("1", *TRAIN)
    assert "2 is left to ml/train-2; 1 is left to ml/train-1" in on.reason()
    for workflow in ("ml/other", "ml/train-1"):
        assert on.wanted() == {}
        end = dg.AssetObservation(WORKFLOW_ENDS, partition="1", description=workflow_end(workflow))
        on.instance.report_runless_asset_event(end)
    assert on.wanted() == {"1": SERVE}
    monkeypatch.setattr(history, "time", lambda: time() + SECONDS_WITHOUT_A_RUN)
    assert on.wanted() == {"1": SERVE, "2": TRAIN}


def report(on: Automated, run: dg.DagsterRun, event: str) -> None:
    entry = dg.DagsterEvent(event_type_value=f"PIPELINE_{event}", job_name=run.job_name)
    on.instance.report_dagster_event(entry, run.run_id)


def test_what_a_person_stopped_is_left_alone_until_somebody_works_on_it_again(
    on: Automated,
) -> None:
    on.put("1")
    stopped = on.run("1")
    report(on, stopped, "CANCELING")
    report(on, stopped, "CANCELED")
    assert "1 was cancelled" in on.reason()
    report(on, on.run("1"), "FAILURE")
    assert on.wanted() == {"1": TRAIN}


def test_a_command_whose_process_is_gone_holds_no_version(on: Automated) -> None:
    on.put("1")
    gone = "gone"
    with living(on.instance) as alive:
        Path(on.instance.root_directory, "processes", gone).touch()
        for process, parent, wanted in (
            (alive, None, {}),
            (gone, "launched-again-in-the-ui", {}),
            (gone, None, {"1": TRAIN}),
        ):
            tags = {PROCESS_TAG: process}
            run = on.run("1", tags=tags, parent_run_id=parent, root_run_id=parent)
            assert on.wanted() == wanted
            on.instance.delete_run(run.run_id)


def test_a_run_that_was_made_and_never_launched_holds_its_version_for_ten_minutes(
    on: Automated, monkeypatch: pytest.MonkeyPatch
) -> None:
    on.put("1")
    on.run("1", status=dg.DagsterRunStatus.NOT_STARTED)
    assert on.wanted() == {}
    monkeypatch.setattr(history, "time", lambda: time() + 600)
    assert on.wanted() == {"1": TRAIN}


def test_one_version_is_served_at_a_time_the_newest_first(on: Automated) -> None:
    on.put("9", "10", "11")
    on.make("9", *TRAIN)
    on.make("10", *TRAIN)
    requests = on.tick().run_requests or ()
    assert [r.partition_key for r in requests] == ["10", "11"]
    assert [r.tags.get("dagster/priority", "0") for r in requests] == ["1", "0"]
    on.launch(requests[0])
    assert on.wanted() == {"11": TRAIN}


def test_a_failed_gate_stops_its_version_alone(on: Automated) -> None:
    on.put("1", "2")
    on.make("1", *TRAIN[:2], failed="quality_gate")
    on.make("2", *TRAIN)
    (request,) = on.tick().run_requests or ()
    assert request.partition_key == "2"
    on.launch(request)
    assert "1 under way, 1 stopped by a gate" in on.reason()


def test_a_run_that_ends_without_a_verdict_is_launched_again_later_with_a_bound(
    on: Automated,
) -> None:
    on.put("1")
    (request,) = on.tick().run_requests or ()
    for attempt in range(1, MAX_ATTEMPTS + 1):
        on.instance.report_run_failed(on.launch(request))
        reason = "gave up" if attempt == MAX_ATTEMPTS else "1 waits before the next attempt"
        assert reason in on.reason()


def test_a_run_that_dagster_will_try_again_is_not_launched_beside_it(on: Automated) -> None:
    run = on.start("1")
    on.instance.report_run_failed(run)
    on.instance.add_run_tags(run.run_id, {"dagster/will_retry": "true"})
    assert "1 is tried again by Dagster" in on.reason()


def test_a_version_that_a_backfill_has_is_left_to_it(on: Automated) -> None:
    on.put("1", "2")
    on.instance.add_dynamic_partitions("data_version", ["1", "2"])
    on.instance.add_backfill(requested(on.instance, on.definitions, "backfill", ["2"]))
    assert on.instance.get_backfill("backfill").status == BulkActionStatus.REQUESTED
    assert on.wanted() == {"1": TRAIN}


def past_its_gates(
    on: Automated, data_version: str, against: ModelVersion | None = None
) -> ModelVersion:
    on.put(data_version)
    on.make(data_version, *ORDER[:-1])
    return on.registry.know(data_version, against)


def test_a_version_past_its_gates_is_promoted_and_one_compared_with_another_live_is_compared_again(
    on: Automated,
) -> None:
    first = past_its_gates(on, "1")
    past_its_gates(on, "2", against=first)
    past_its_gates(on, "3")
    assert on.wanted() == {"3": ["live_deployment"]}
    on.registry.live.append(first)
    again = on.tick().run_requests or ()
    assert [str(r.partition_key) for r in again] == ["3"]
    assert [key.to_user_string() for key in again[0].asset_selection or ()] == SERVE[1:]
    assert "live is now" in again[0].tags["lora_assets/why"]
    on.make("3", *SERVE[1:3], failed="eval_gate")
    assert on.wanted() == {"2": ["live_deployment"]}


def test_a_version_without_verdicts_keeps_no_other_and_one_trained_again_is_served_again(
    on: Automated,
) -> None:
    past_its_gates(on, "1")
    past_its_gates(on, "2")
    del on.registry.compared_with["2"]
    assert on.wanted() == {"1": ["live_deployment"]}
    on.make("2", *TRAIN[1:])
    assert on.wanted() == {"2": SERVE}


def test_a_version_that_went_live_in_a_run_that_died_is_not_compared_with_itself(
    on: Automated,
) -> None:
    on.registry.live.append(past_its_gates(on, "1"))
    assert on.wanted() == {"1": ["live_deployment"]}


@BY_HAND
def test_without_automatic_promotion_a_version_past_its_gates_waits(on: Automated) -> None:
    on.put("1")
    on.make("1", *TRAIN)
    assert on.wanted() == {"1": SERVE[:-1]}
    past_its_gates(on, "1")
    assert on.wanted() == {}
    on.registry.live.append(on.registry.know("0", None))
    assert on.wanted() == {"1": SERVE[1:-1]}


@BY_HAND
def test_what_a_backfill_was_to_promote_is_compared_and_promoted_before_what_waits_for_a_person(
    on: Automated,
) -> None:
    live = on.registry.know("1", None)
    on.registry.live.append(live)
    for version in ("2", "3", "4"):
        past_its_gates(on, version)
    ended = dg.DagsterRunStatus.SUCCESS
    on.run("2", "live_deployment", status=ended, tags={CAUSE_TAG: "any", **PASSED_OVER})
    assert on.wanted() == {"4": SERVE[1:-1]}
    by_backfill = {"dagster/backfill": "any", **PASSED_OVER}
    on.run("3", "live_deployment", status=ended, tags=by_backfill)
    assert on.wanted() == {"3": SERVE[1:]}
    on.registry.compared_with["3"] = live
    assert on.wanted() == {"3": ["live_deployment"]}
    on.make("3", "live_deployment")
    on.registry.live.append(on.registry.by_data_version["3"])
    assert on.wanted() == {"4": SERVE[1:-1]}
