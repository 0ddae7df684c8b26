"""How MLflow's client behaves here: quiet, bounded in time, and failing in one line."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from mlflow import MlflowClient
from mlflow.environment_variables import (
    MLFLOW_DISABLE_TELEMETRY,
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR,
    MLFLOW_HTTP_REQUEST_MAX_RETRIES,
    MLFLOW_HTTP_REQUEST_TIMEOUT,
    MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT,
)
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from lora_assets.errors import LoraAssetsError
from lora_assets.serving.vllm_plugin.adapters_folder import digest_folder

MLFLOW_DISABLE_TELEMETRY.set(True)  # type: ignore[no-untyped-call]
MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR.set(False)  # type: ignore[no-untyped-call]
MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(3)  # type: ignore[no-untyped-call]
MLFLOW_HTTP_REQUEST_TIMEOUT.set(30)  # type: ignore[no-untyped-call]
MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.set(True)  # type: ignore[no-untyped-call]
for name in ("mlflow", "alembic"):
    logging.getLogger(name).setLevel(logging.WARNING)
# It logs the trace of what it raises, and what is raised is told in one line (mlflow_errors).
logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)

_HOST_REFUSED = "Invalid Host header"


def holds(client: MlflowClient, run_id: str, name: str, digest: str) -> bool:
    """Whether a run's artifact folder `name` has the bytes that `digest` was taken from."""
    if not client.list_artifacts(run_id, name):
        return False
    with TemporaryDirectory() as folder:
        return digest_folder(Path(client.download_artifacts(run_id, name, folder))) == digest


@contextmanager
def mlflow_errors(tracking_uri: str) -> Iterator[None]:
    """Turn an MLflow exception inside the block into a LoraAssetsError that names the server."""
    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        remedy = "Check that it runs, has room, and that --mlflow-tracking-uri points at it."
        if _HOST_REFUSED in reason:
            host = urlsplit(tracking_uri).netloc
            remedy = f"Start the MLflow server with --allowed-hosts {host}, beside its other names."
        raise LoraAssetsError(f"MLflow at {tracking_uri} failed ({reason})", remedy) from None
