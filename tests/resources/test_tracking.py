"""The runs that MLflow keeps of what was done."""

import os
import shutil
from pathlib import Path
from typing import ClassVar

import pytest
from mlflow import MlflowClient

from lora_assets.errors import LoraAssetsError
from lora_assets.records.progress import Progress
from lora_assets.resources.mlflow_client import mlflow_client
from lora_assets.resources.tracking import Tracking
from tests.support.stack import free_port


class _Leaving(Tracking):
    """An MLflow that goes away when `there` is emptied."""

    there: ClassVar[list[str]] = []

    @property
    def _client(self) -> MlflowClient:
        uri = self.tracking_uri if self.there else f"http://127.0.0.1:{free_port()}"
        return mlflow_client(uri)


@pytest.mark.integration
@pytest.mark.parametrize("is_there", [True, False])
def test_an_interrupt_is_raised_as_one_whether_or_not_mlflow_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(_Leaving, "there", ["it is"])
    tracking = _Leaving(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    opened = []

    def interrupted() -> None:
        with tracking.run("tests", "interrupted", "key", {}) as run:
            opened.append(run)
            if not is_there:
                tracking.there.clear()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    (run,) = opened
    status = run.client.get_run(run.run_id).info.status
    assert status == ("KILLED" if is_there else "RUNNING")


@pytest.fixture
def tracking(empty_mlflow: Path, tmp_path: Path) -> Tracking:
    database = shutil.copy(empty_mlflow, tmp_path)
    return Tracking(tracking_uri=f"sqlite:///{database}", artifacts=tmp_path.as_uri())


def test_a_run_that_is_taken_up_has_its_table_once(tracking: Tracking) -> None:
    rows = [{"row": 0, "answer": "Dóes a."}, {"row": 1, "answer": ""}]
    with tracking.run("tables", "run", "key", {}) as run:
        assert tracking.table(run.run_id, "grades") == []
        run.table(rows, "grades")
        run.table(rows, "grades")
    assert tracking.table(run.run_id, "grades") == rows


def test_a_runs_file_that_is_larger_than_a_reply_may_be_is_refused_before_it_is_fetched(
    tracking: Tracking, tmp_path: Path
) -> None:
    with tracking.run("tables", "run", "key", {}) as run:
        run.table([], "grades")
    os.truncate(next(tmp_path.rglob("grades.json")), 200 << 30)
    for read in (tracking.table, lambda *of: tracking.record(*of, Progress)):
        with pytest.raises(LoraAssetsError, match=r"grades\.json of .* has 204,800 MiB, more than"):
            read(run.run_id, "grades")


def test_of_those_that_find_no_experiment_at_once_one_makes_it_for_all(tracking: Tracking) -> None:
    looks: list[str] = []

    class Late(Tracking):
        """Between its look for the experiment and its making, another one makes it."""

        @property
        def _client(self) -> MlflowClient:
            if len(looks) == 2:
                tracking.finished("tests", "key", {})
            looks.append("another")
            return mlflow_client(self.tracking_uri)

    assert Late(**dict(tracking)).finished("tests", "key", {}) is None
    assert len(looks) == 4
