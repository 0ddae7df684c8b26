"""MLflow's failures as one line for a person."""

from collections.abc import Iterator
from contextlib import contextmanager

from mlflow.exceptions import MlflowException

from lora_assets.errors import LoraAssetsError


@contextmanager
def mlflow_errors(tracking_uri: str) -> Iterator[None]:
    """Turn an MLflow exception inside the block into a LoraAssetsError that names the server."""
    try:
        yield
    except MlflowException as error:
        reason = str(error).splitlines()[0]
        raise LoraAssetsError(
            f"MLflow at {tracking_uri} failed: {reason}",
            "Check that it runs and that --mlflow-tracking-uri points at it.",
        ) from None
