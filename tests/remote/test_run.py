"""The run of a stage command on a real Dagster: launched once, followed, stopped."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from lora_assets.errors import LoraAssetsError, Stopped
from lora_assets.remote.run import RemoteRun, stop_signals
from lora_assets.remote.webserver import DagsterWebserver
from tests.support.dagster_services import PATIENCE_S, until
from tests.support.doubles.flaky_network import FlakyNetwork
from tests.support.remote_commands import TRAIN, Stages, outputs

DOWNLOAD = (*TRAIN, "--step", "download-data")


def test_a_step_that_is_stopped_before_its_launch_launches_nothing() -> None:
    launched: list[str] = []
    with stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        remote = RemoteRun(DagsterWebserver("http://127.0.0.1:9", ""), {}, print)
        with pytest.raises(Stopped, match="stopped; nothing was launched"):
            remote.launch(lambda: launched.append("a run"), stop)
    assert not launched


def test_an_error_after_the_signal_is_not_told_as_why_the_command_ends() -> None:
    with stop_signals() as stop:
        for number, raised in ((None, LoraAssetsError), (signal.SIGTERM, Stopped)):
            if number is not None:
                os.kill(os.getpid(), number)
            with pytest.raises(raised), stop.before_launch():
                raise LoraAssetsError("MLflow is away", "Check that it runs.")


def test_a_step_follows_its_run_to_its_end_and_a_retry_finds_the_same_run(
    stages: Stages, tmp_path: Path
) -> None:
    printed: dict[str, str] = {}
    for attempt in ("first", "retry"):
        code, printed[attempt] = stages.run(*DOWNLOAD, LORA_ASSETS_OUTPUTS=str(tmp_path))
        assert code == 0
        assert "PASSED: rows in train 8" in printed[attempt]
        (run,) = stages.runs()
        assert run.status == "SUCCESS"
        expected = {"run-id": run.run_id, "data-version": "1", "result": "passed"}
        assert outputs(tmp_path) == expected
        assert f"run {stages.dagster.webserver.link(run.run_id)}\n" in printed[attempt]
        (tmp_path / "run-id").unlink()
    assert "read train 8, val 8, eval 8 rows" in printed["first"]


def test_two_attempts_at_once_agree_on_one_run_and_the_other_never_works(stages: Stages) -> None:
    network = FlakyNetwork(stages.dagster.url, together=2)
    with network.serving() as url:
        attempts = [stages.start(*DOWNLOAD, url=url) for _ in range(2)]
        ended = [attempt.end() for attempt in attempts]
    first, second = sorted(stages.runs(), key=lambda run: run.created)
    assert (first.status, second.status) == ("SUCCESS", "CANCELED")
    for code, printed in ended:
        assert code == 0, printed
        assert f"/runs/{first.run_id}\n" in printed
    assert stages.dagster.events(second.run_id, "ExecutionStepStartEvent") == []


def test_a_launch_whose_reply_is_lost_is_not_made_again(stages: Stages) -> None:
    network = FlakyNetwork(stages.dagster.url, lose_replies=1)
    with network.serving() as url, stages.dagster.nothing_starts():
        attempt = stages.start_queued(*TRAIN, url=url)
        assert (network.launches, len(stages.runs())) == (1, 1)
        network.down = True
        code, printed = attempt.end()
        assert code == os.EX_TEMPFAIL
        assert f"error: The connection to Dagster at {url} is lost" in printed
        network.down = False
        again = stages.start_queued(*TRAIN, url=url)
        assert (network.launches, len(stages.runs())) == (1, 1)
        again.process.terminate()
        assert again.end()[0] == 143


def test_a_step_that_is_stopped_terminates_its_run(stages: Stages) -> None:
    attempt = stages.start(*TRAIN)
    attempt.read_until("trained ")
    attempt.process.terminate()
    code, printed = attempt.end()
    (launched,) = stages.runs()
    link = stages.dagster.webserver.link(launched.run_id)
    assert code == 143
    assert f"error: stopped; terminated {link}\n" in printed
    until(lambda: stages.statuses() == ["CANCELED"])
    code, printed = stages.run(*TRAIN)
    assert code == 1
    assert f"error: run {link} was terminated\n" in printed


@pytest.mark.parametrize("held", ["launchRun", "runsOrError"])
def test_a_step_that_is_stopped_before_it_knows_its_run_terminates_it(
    stages: Stages, held: str
) -> None:
    """While it launches the run, or while it looks for that of an attempt that was killed."""
    network = FlakyNetwork(stages.dagster.url, holds=held)
    with network.serving() as url, stages.dagster.nothing_starts():
        if held == "runsOrError":
            stages.start_queued(*TRAIN).process.kill()
        network.go_on.clear()
        attempt = stages.start(*TRAIN, url=url)
        assert network.arrived.wait(PATIENCE_S)
        attempt.process.terminate()
        network.go_on.set()
        code, printed = attempt.end()
    assert code == 143
    assert "error: stopped; terminated" in printed
    assert stages.statuses() == ["CANCELED"]


def test_what_a_stopped_workflow_left_is_terminated_and_its_end_reported_once_dagster_answers(
    stages: Stages,
) -> None:
    network = FlakyNetwork(stages.dagster.url, down=True)
    other = replace(stages, request=str(uuid4()))
    with network.serving() as url, stages.dagster.nothing_starts():
        for each in (stages, other):
            of_workflow = {"LORA_ASSETS_ARGO_WORKFLOW": f"ml/{each.request}"}
            each.start_queued(*TRAIN, **of_workflow).process.kill()
        request = stages.request
        workflow = {"LORA_ASSETS_ARGO_WORKFLOW": f"ml/{request}", "LORA_ASSETS_REQUEST": ""}
        handler = stages.start("terminate", url=url, **workflow)
        handler.read_until(f"The connection to Dagster at {url} is lost")
        network.down = False
        code, _ = handler.end()
        assert code == 0
        assert stages.statuses() == ["CANCELED"]
        assert stages.start("terminate", **workflow).end() == (0, "terminated nothing\n")
        assert stages.dagster.observed("adapter") == {"1": f"Ended: Argo workflow ml/{request}"}
        (left,) = other.runs()
        assert not left.ended
        # While it is queued: a run that is just starting is not to be terminated.
        stages.dagster.webserver.terminate(left.run_id)
        assert other.statuses() == ["CANCELED"]


def test_a_run_that_is_deleted_under_its_step_is_one_line(stages: Stages) -> None:
    with stages.dagster.nothing_starts():
        attempt = stages.start_queued(*TRAIN)
        (launched,) = stages.runs()
        delete = f'deletePipelineRun(runId: "{launched.run_id}")'
        stages.dagster.ask(f"mutation {{ {delete} {{ __typename }} }}")
        code, printed = attempt.end()
    assert code == 1
    assert f"error: run {launched.run_id} is gone: it was deleted in Dagster\n" in printed
