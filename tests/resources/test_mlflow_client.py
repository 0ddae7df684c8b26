"""What an MLflow that can't be used looks like to a person."""

import pytest
from mlflow.exceptions import MlflowException

from lora_assets.errors import LoraAssetsError
from lora_assets.resources.mlflow_client import mlflow_errors
from lora_assets.resources.tracking import Tracking
from tests.support.stack import free_port


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


@pytest.mark.integration
def test_a_server_that_does_not_run_is_one_line() -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(LoraAssetsError, match=f"MLflow at {uri} failed .*refused") as raised:
        Tracking(tracking_uri=uri).verdict("run", "quality_gate")
    assert "\n" not in str(raised.value)
