"""What an MLflow that can't be used looks like to a person."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from lora_assets import bounded_calls
from lora_assets.bounded_calls import within
from lora_assets.errors import LoraAssetsError
from lora_assets.resources import mlflow_client as mlflow_client_module
from lora_assets.resources.adapter_source import fetch_source
from lora_assets.resources.mlflow_client import bytes_in, mlflow_client, mlflow_errors
from lora_assets.resources.tracking import Tracking
from tests.support.doubles.trickling import HEADERS, trickling


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


@pytest.mark.parametrize("head", [HEADERS, HEADERS + b"\r\n{"])
@pytest.mark.parametrize(
    "ask",
    [
        lambda url, to: mlflow_client(url).get_run("r"),
        lambda url, to: fetch_source("runs:/r/adapter", url, to),
        # As dagster-mlflow and the look at the machine do, with MLflow's client as it is.
        lambda url, to: mlflow_errors(url)(MlflowClient(url).get_run)("r"),
    ],
)
def test_a_server_that_sends_a_byte_now_and_then_holds_nobody_for_ever(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, head: bytes, ask: Callable[[str, Path], object]
) -> None:
    monkeypatch.setattr(bounded_calls, "CALL_S", 0.3)
    with (
        trickling(head) as url,
        pytest.raises(LoraAssetsError, match=rf"MLflow at {url} failed \(.*no whole reply"),
    ):
        ask(url, tmp_path)


def test_a_reply_that_is_too_large_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_client_module, "MOST_REPLY_BYTES", 1 << 20)
    with (
        trickling(HEADERS.replace(b"999999", b"9999999") + b"\r\n" + b" " * (2 << 20)) as url,
        pytest.raises(LoraAssetsError, match=r"failed \(.*the reply has more than 1 MiB"),
    ):
        mlflow_client(url).get_run("r")


def test_files_that_go_on_arriving_are_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bounded_calls, "CALL_S", 0)
    (tmp_path / "adapter").write_bytes(b"x" * 60 * bounded_calls.SLOWEST_BYTES_PER_S)
    assert within(lambda: "here", partial(bytes_in, tmp_path)) == "here"
    with pytest.raises(TimeoutError):
        within(lambda: "here")


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
