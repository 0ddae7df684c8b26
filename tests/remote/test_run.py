"""The run of a stage command on a real Dagster: launched once, followed, stopped."""

import os
import signal
from pathlib import Path
from uuid import uuid4

import pytest

from lora_assets.records.run_outcome import RunFailed
from lora_assets.remote.run import RemoteRun, stop_signals
from lora_assets.remote.webserver import DagsterWebserver
from tests.support.dagster_services import PATIENCE_S, until
from tests.support.doubles.flaky_network import FlakyNetwork
from tests.support.remote_commands import RunStage, Start, outputs
from tests.support.remote_dagster import RemoteDagster


def test_a_step_that_is_stopped_before_its_launch_launches_nothing() -> None:
    launched: list[str] = []
    with stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        remote = RemoteRun(DagsterWebserver("http://127.0.0.1:9", ""), {}, print)
        with pytest.raises(RunFailed, match="stopped before anything was launched"):
            remote.launch(lambda: launched.append("a run"), stop)
    assert not launched


def test_a_step_follows_its_run_to_its_end_and_a_retry_finds_the_same_run(
    dagster: RemoteDagster, run: RunStage, request_key: str, tmp_path: Path
) -> None:
    step = ("train", "--data-version", "1", "--step", "download-data")
    code, printed = run(request_key, *step, LORA_ASSETS_OUTPUTS=str(tmp_path))
    (launched,) = dagster.runs(request_key)
    assert code == 0
    assert f"run {dagster.url}/runs/{launched.run_id}\n" in printed
    assert "read train 8, val 8, eval 8 rows" in printed
    assert "PASSED: rows in train 8" in printed
    expected = {"run-id": launched.run_id, "data-version": "1", "result": "passed"}
    assert outputs(tmp_path) == expected
    (tmp_path / "run-id").unlink()
    code, printed = run(request_key, *step, LORA_ASSETS_OUTPUTS=str(tmp_path))
    assert code == 0
    assert "PASSED: rows in train 8" in printed
    assert outputs(tmp_path) == expected
    assert dagster.runs(request_key) == [launched.model_copy(update={"status": "SUCCESS"})]


def test_two_attempts_at_once_agree_on_one_run_and_the_other_never_works(
    dagster: RemoteDagster, start: Start, request_key: str
) -> None:
    network = FlakyNetwork(dagster.url, together=2)
    with network.serving() as url:
        step = ("train", "--data-version", "1", "--step", "download-data")
        attempts = [start(request_key, *step, url=url) for _ in range(2)]
        ended = [attempt.end() for attempt in attempts]
    first, second = sorted(dagster.runs(request_key), key=lambda run: run.created)
    assert (first.status, second.status) == ("SUCCESS", "CANCELED")
    for code, printed in ended:
        assert code == 0, printed
        assert f"/runs/{first.run_id}\n" in printed
    log = DagsterWebserver(dagster.url, dagster.url).events(second.run_id, None).events
    assert "ExecutionStepStartEvent" not in [event.kind for event in log]


def test_a_launch_whose_reply_is_lost_is_not_made_again(
    dagster: RemoteDagster, run: RunStage, start: Start, request_key: str
) -> None:
    network = FlakyNetwork(dagster.url, lose_replies=1)
    with network.serving() as url, dagster.nothing_starts():
        attempt = start(request_key, "train", "--data-version", "1", url=url)
        attempt.read_until("queued")
        assert (network.launches, len(dagster.runs(request_key))) == (1, 1)
        network.down = True
        code, printed = attempt.end()
        assert code == os.EX_TEMPFAIL
        assert f"error: The connection to Dagster at {url} is lost" in printed
        network.down = False
        again = start(request_key, "train", "--data-version", "1", url=url)
        again.read_until("queued")
        assert (network.launches, len(dagster.runs(request_key))) == (1, 1)
        again.process.terminate()
        assert again.end()[0] == 1


def test_a_step_that_is_stopped_terminates_its_run(
    dagster: RemoteDagster, start: Start, run: RunStage, request_key: str
) -> None:
    attempt = start(request_key, "train", "--data-version", "1")
    attempt.read_until("trained ")
    attempt.process.terminate()
    code, printed = attempt.end()
    (launched,) = dagster.runs(request_key)
    assert code == 1
    assert f"error: stopped; terminated {dagster.url}/runs/{launched.run_id}\n" in printed
    until(lambda: dagster.runs(request_key)[0].status == "CANCELED")
    code, printed = run(request_key, "train", "--data-version", "1")
    assert code == 1
    assert f"error: run {dagster.url}/runs/{launched.run_id} was terminated\n" in printed


def test_a_step_that_is_stopped_during_its_launch_terminates_what_it_launched(
    dagster: RemoteDagster, start: Start, request_key: str
) -> None:
    network = FlakyNetwork(dagster.url)
    with network.serving() as url, dagster.nothing_starts():
        network.go_on.clear()
        attempt = start(request_key, "train", "--data-version", "1", url=url)
        assert network.arrived.wait(PATIENCE_S)
        attempt.process.terminate()
        network.go_on.set()
        code, printed = attempt.end()
    assert code == 1
    assert "error: stopped; terminated" in printed
    assert [run.status for run in dagster.runs(request_key)] == ["CANCELED"]


def test_an_attempt_that_is_stopped_before_it_has_found_its_run_terminates_it(
    dagster: RemoteDagster, start: Start, request_key: str
) -> None:
    network = FlakyNetwork(dagster.url, holds="runsOrError")
    with network.serving() as url, dagster.nothing_starts():
        first = start(request_key, "train", "--data-version", "1")
        first.read_until("queued")
        first.process.kill()
        network.go_on.clear()
        again = start(request_key, "train", "--data-version", "1", url=url)
        assert network.arrived.wait(PATIENCE_S)
        again.process.terminate()
        network.go_on.set()
        code, printed = again.end()
    assert code == 1
    assert "error: stopped; terminated" in printed
    assert [run.status for run in dagster.runs(request_key)] == ["CANCELED"]


def test_what_a_stopped_workflow_left_running_is_terminated_once_dagster_answers(
    dagster: RemoteDagster, start: Start, request_key: str
) -> None:
    network = FlakyNetwork(dagster.url, down=True)
    other = str(uuid4())
    with network.serving() as url, dagster.nothing_starts():
        for request in (request_key, other):
            attempt = start(request, "train", "--data-version", "1", workflow=f"ml/{request}")
            attempt.read_until("queued")
            attempt.process.kill()
        handler = start("", "terminate", url=url, workflow=f"ml/{request_key}")
        handler.read_until(f"The connection to Dagster at {url} is lost")
        network.down = False
        code, _ = handler.end()
        assert code == 0
        assert [run.status for run in dagster.runs(request_key)] == ["CANCELED"]
        (left,) = dagster.runs(other)
        assert not left.ended
        # While it is queued: a run that is just starting is not to be terminated.
        DagsterWebserver(dagster.url, dagster.url).terminate(left.run_id)
        assert [run.status for run in dagster.runs(other)] == ["CANCELED"]


def test_a_run_that_is_deleted_under_its_step_is_one_line(
    dagster: RemoteDagster, start: Start, request_key: str
) -> None:
    with dagster.nothing_starts():
        attempt = start(request_key, "train", "--data-version", "1")
        attempt.read_until("queued")
        (launched,) = dagster.runs(request_key)
        dagster.ask(
            f'mutation {{ deletePipelineRun(runId: "{launched.run_id}") {{ __typename }} }}'
        )
        code, printed = attempt.end()
    assert code == 1
    assert f"error: run {launched.run_id} is gone: it was deleted in Dagster\n" in printed
