"""Ctrl-C and SIGTERM: one line, the code that shells expect, a run that is cancelled."""

import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
from dagster import DagsterRunStatus
from mlflow import MlflowClient

from lora_assets.local.instance import open_instance
from lora_assets.sensors.history import cancelled
from lora_assets.settings import read_settings
from tests.support.commands import Command
from tests.support.data_versions import drop
from tests.support.held_training import BEGUN, held_training

pytestmark = pytest.mark.integration


@pytest.fixture
def environment(tmp_path: Path) -> Mapping[str, str]:
    environment = {"LORA_ASSETS_HOME": str(tmp_path)}
    drop(read_settings(environment).s3_data_bucket, "1")
    return environment


def stop(command: Command, number: int) -> tuple[int, str]:
    """Send a signal once; the exit code and all that is printed from then on."""
    command.process.send_signal(number)
    code, printed = command.end()
    return code, printed.removeprefix(command.printed)


def mlflow_statuses(environment: Mapping[str, str]) -> list[str]:
    client = MlflowClient(read_settings(environment).mlflow_tracking_uri)
    experiment = client.get_experiment_by_name("vllm-lora-training").experiment_id
    return [run.info.status for run in client.search_runs([experiment])]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_training_that_is_stopped_is_cancelled_and_left_alone_by_the_sensor(
    environment: Mapping[str, str], number: int, code: int
) -> None:
    with held_training(environment) as training:
        training.read_until(BEGUN)
        ended = stop(training, number)
    with open_instance(read_settings(environment).dagster_home, managed=True) as instance:
        (run,) = instance.get_runs()
        assert run.status == DagsterRunStatus.CANCELED
        assert cancelled(instance, ["1"]) == {"1"}
    assert mlflow_statuses(environment) == ["KILLED"]
    said = f"error: stopped; run {run.run_id} is cancelled, and the same command begins it again\n"
    assert ended == (code, said)


def test_a_training_that_waits_for_another_one_can_be_stopped_too(
    environment: Mapping[str, str],
) -> None:
    with held_training(environment) as first:
        first.read_until(BEGUN)
        with held_training(environment) as second:
            second.read_until("waiting for train of data version 1")
            code, said = stop(second, signal.SIGINT)
        with open_instance(read_settings(environment).dagster_home, managed=True) as instance:
            statuses = sorted(run.status.value for run in instance.get_runs())
    assert statuses == ["CANCELED", "STARTED"]
    assert (code, said.count("\n")) == (130, 1)
