"""Every failure is posted once, with what to do next, also over a webhook that is down."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)

from lora_assets.assets.graph import data_versions
from lora_assets.automation.next_run import CAUSE_TAG, MAX_ATTEMPTS
from lora_assets.errors import LoraAssetsError
from lora_assets.resources.webhook import Webhook
from lora_assets.sensors.notices import notices
from tests.support.doubles.webhook_receiver import WebhookReceiver


def location(name: str) -> GrpcServerCodeLocationOrigin:
    return GrpcServerCodeLocationOrigin(host="127.0.0.1", port=1, location_name=name)


class Ticks:
    """The sensor on an instance of its own, its cursor kept as the daemon keeps it."""

    def __init__(self, instance: dg.DagsterInstance, receiver: WebhookReceiver, url: str) -> None:
        self.instance = instance
        self.receiver = receiver
        self.webhook = Webhook(url=url, ui_url="http://ui")
        self.cursor: str | None = None
        self.tick()

    def tick(self) -> str:
        context = dg.SensorEvaluationContext(
            instance_ref=None,
            instance=self.instance,
            cursor=self.cursor,
            resources={"webhook": self.webhook.get_resource_definition()},
            code_location_origin=location("ours"),
        )
        result = notices(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        return str(result.skip_reason)

    def run(self, fails: str, **tags: str) -> dg.ExecuteInProcessResult:
        """A run of one version that its gate, or an error, stops."""

        @dg.asset(partitions_def=data_versions, name=fails)
        def made() -> None:
            if fails != "eval_grades":
                raise LoraAssetsError("No reply", "Start it.")

        @dg.asset_check(asset=made, name="eval_gate", blocking=True, partitions_def=data_versions)
        def gate() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(passed=False, description="a_rate 0.5 (must be >= 0.7)")

        self.instance.add_dynamic_partitions("data_version", ["7"])
        options: Any = {"instance": self.instance, "raise_on_error": False, "tags": tags}
        return dg.materialize([made, gate], partition_key="7", **options)


@pytest.fixture
def ticks(instance: dg.DagsterInstance) -> Iterator[Ticks]:
    receiver = WebhookReceiver()
    yield Ticks(instance, receiver, receiver.url)
    receiver.stop()


def test_a_failed_gate_is_posted_once_with_numbers_next_step_and_link(ticks: Ticks) -> None:
    run = ticks.run("eval_grades")
    ticks.tick()
    ticks.tick()
    (text,) = ticks.receiver.texts
    assert text.startswith("Data version 7: eval_gate failed: a_rate 0.5 (must be >= 0.7). ")
    assert "train from better data" in text
    assert text.endswith(f"http://ui/runs/{run.run_id}")


def test_a_failed_promotion_and_a_failed_step_are_posted(ticks: Ticks) -> None:
    ticks.run("live_deployment")
    ticks.run("adapter", **{CAUSE_TAG: "7/adapter/1"})
    ticks.tick()
    promotion, training = ticks.receiver.texts
    assert "the promotion failed: No reply. Start it. Promoting again resumes it." in promotion
    assert "Look at the run, then launch it again." in promotion
    assert "adapter failed: No reply. Start it. It is launched again by itself" in training


@pytest.mark.parametrize("name", ["ours", "others"])
def test_what_fails_in_another_code_location_is_not_posted(ticks: Ticks, name: str) -> None:
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location(name), "__repository__"), "nightly")
    run = dg.DagsterRun(job_name="nightly", remote_job_origin=origin)
    ticks.instance.add_run(run)
    ticks.instance.report_run_failed(run)
    ticks.tick()
    assert len(ticks.receiver.texts) == (name == "ours")


def test_a_run_whose_process_was_lost_names_the_step_that_was_under_way(ticks: Ticks) -> None:

    @dg.op
    def live_deployment() -> None: ...

    @dg.job
    def promote() -> None:
        live_deployment()

    for step in ("live_deployment", None):
        run = ticks.instance.create_run_for_job(promote)
        if step is not None:
            start = dg.DagsterEvent("STEP_START", job_name=run.job_name, step_key=step)
            ticks.instance.report_dagster_event(start, run.run_id)
        ticks.instance.report_run_failed(run)
    ticks.tick()
    promotion, unstarted = ticks.receiver.texts
    assert "the promotion failed: its process was lost" in promotion
    assert "the run promote failed: its process was lost, or could not start" in unstarted


def test_the_last_failure_of_a_cause_says_that_a_person_is_needed(ticks: Ticks) -> None:
    for _ in range(MAX_ATTEMPTS):
        ticks.run("adapter", **{CAUSE_TAG: "7/adapter/1"})
        ticks.tick()
    *earlier, last = ticks.receiver.texts
    assert len(earlier) == MAX_ATTEMPTS - 1
    assert all("It is launched again by itself" in text for text in earlier)
    assert "It is not launched again by itself: remove the cause, then launch it" in last


@pytest.mark.parametrize("repaired", [True, False])
def test_a_replica_that_drifted_is_posted_with_its_outcome(ticks: Ticks, repaired: bool) -> None:

    @dg.op
    def repair() -> None:
        if not repaired:
            raise LoraAssetsError("Still wrong", "Restart it.")

    @dg.job
    def repair_replicas() -> None:
        repair()

    tags = {"lora_assets/why": "http://a serves nothing as live"}
    repair_replicas.execute_in_process(instance=ticks.instance, raise_on_error=False, tags=tags)
    ticks.tick()
    (text,) = ticks.receiver.texts
    assert text.startswith("http://a serves nothing as live. ")
    assert ("It was repaired" in text) == repaired


def test_a_webhook_that_is_down_fails_the_tick_and_loses_and_repeats_nothing(ticks: Ticks) -> None:
    for step in ("adapter", "gate_result"):
        ticks.run(step)
    ticks.receiver.takes = 1
    assert "webhook is down" in ticks.tick()
    with pytest.raises(LoraAssetsError, match="status 503") as failed:
        ticks.tick()
    assert "secret" not in str(failed.value)
    ticks.receiver.takes = 99
    ticks.tick()
    first, second = ticks.receiver.texts
    assert "adapter failed" in first
    assert "gate_result failed" in second


def test_without_a_webhook_nothing_is_posted_then_or_later(ticks: Ticks) -> None:
    ticks = Ticks(ticks.instance, ticks.receiver, url="")
    ticks.run("adapter")
    assert "not set" in ticks.tick()
    ticks.webhook = Webhook(url=ticks.receiver.url)
    ticks.tick()
    assert ticks.receiver.texts == []
