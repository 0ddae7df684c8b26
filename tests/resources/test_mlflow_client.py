"""What an MLflow that can't be used looks like to a person."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from lora_assets.errors import LoraAssetsError
from lora_assets.resources.adapter_source import fetch_source
from lora_assets.resources.mlflow_client import mlflow_errors
from lora_assets.resources.tracking import Tracking


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        (
            "(Caused by NameResolutionError(\"Failed to resolve 'mlflow.nowhere' "
            '([Errno -2] Name or service not known)"))',
            "There is no host mlflow.nowhere:80: correct MLFLOW_TRACKING_URI",
        ),
        ("([Errno -3] Temporary failure in name resolution)", "Check that it runs"),
        ("Invalid Host header - possible DNS rebinding attack", "--allowed-hosts mlflow.nowhere"),
    ],
)
def test_the_one_line_says_which_setting_to_correct(said: str, remedy: str) -> None:
    with (
        pytest.raises(LoraAssetsError, match=remedy) as raised,
        mlflow_errors("http://mlflow.nowhere:80"),
    ):
        raise MlflowException(f"API request failed {said}\nwith a trace")
    assert "\n" not in str(raised.value)


def test_no_password_of_a_url_is_in_an_error() -> None:
    uri = "postgresql+psycopg2://mlflow:secret@db:5432/mlflow"
    with pytest.raises(LoraAssetsError) as raised, mlflow_errors(uri):
        raise MlflowException(f"Can't connect to {uri} or 'http://u:secret@mlflow/x@y'")
    assert "secret" not in str(raised.value) + raised.value.cause + raised.value.remedy
    assert "//db:5432/mlflow" in str(raised.value)
    assert "//mlflow/x@y" in str(raised.value)


@pytest.mark.parametrize("place", ["http://evil/api/2.0/mlflow-artifacts/artifacts/x",
                                   "mlflow-artifacts://evil/x"])  # fmt: skip
def test_mlflows_password_goes_to_no_server_that_keeps_a_runs_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    tracking = Tracking(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    client = MlflowClient(tracking.tracking_uri)
    run = client.create_run(client.create_experiment("x", place)).info.run_id
    reached: list[Callable[[], object]] = [
        lambda: tracking.download(run, "adapter", tmp_path),
        lambda: tracking.holds(run, "adapter", "d" * 64),
        lambda: tracking.reopen(run),
    ]
    if place.startswith("http:"):
        # MLflow itself refuses the other one over a database.
        uri, to = f"runs:/{run}/adapter", tmp_path / "to"
        reached.append(lambda: fetch_source(uri, tracking.tracking_uri, to))
    for reach in reached:
        with pytest.raises(LoraAssetsError, match="password is for mlflow, not for evil"):
            reach()
