"""The runs that MLflow keeps of what was done."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lora_assets.resources.tracking import Tracking


def test_a_run_that_was_interrupted_is_taken_up_and_runs_again(
    tmp_path: Path, empty_mlflow: Path
) -> None:
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    tracking = Tracking(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", artifacts=tmp_path.as_uri())
    client = MlflowClient(tracking.tracking_uri)

    def status(run_id: str) -> str:
        return client.get_run(run_id).info.status

    with pytest.raises(KeyboardInterrupt), tracking.run("evaluation", "run", "key", {}) as first:
        raise KeyboardInterrupt
    assert status(first.run_id) == "KILLED"
    with tracking.run("evaluation", "run", "key", {}) as again:
        assert again.run_id == first.run_id
        assert status(again.run_id) == "RUNNING"
    assert status(again.run_id) == "FINISHED"
    with tracking.run("evaluation", "run", "key", {}) as other:
        assert other.run_id != again.run_id
