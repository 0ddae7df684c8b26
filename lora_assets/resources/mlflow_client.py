"""MLflow's client: imported when a step needs it, quiet, bounded in time, failing in one line."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from lora_assets.errors import LoraAssetsError
from lora_assets.heavy_imports import heavy_imports

if TYPE_CHECKING:
    from mlflow import MlflowClient

os.environ.update(
    MLFLOW_DISABLE_TELEMETRY="true",
    MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false",
    MLFLOW_HTTP_REQUEST_MAX_RETRIES="3",
    MLFLOW_HTTP_REQUEST_TIMEOUT="30",
    MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true",
)

_UNKNOWN_HOST = ("Name or service not known", "No address associated with hostname")
"""What the C library says of a host that does not exist; a resolver that is down says another."""


@contextmanager
def mlflow_client(tracking_uri: str) -> Iterator["MlflowClient"]:
    """Yield a client, and raise what fails in the block as a LoraAssetsError naming the server."""
    client_class = _import_client()
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield client_class(tracking_uri, tracking_uri)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise LoraAssetsError(
            f"MLflow at {tracking_uri} failed ({reason})", _remedy(reason, tracking_uri)
        ) from None


@contextmanager
def tolerating(error_code: str) -> Iterator[None]:
    """Leave the block quietly where MLflow answers with `error_code`."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != error_code:
            raise


@cache
def _import_client() -> type["MlflowClient"]:
    """Import what takes longer than all else that a light step does, once a process."""
    with heavy_imports():
        from mlflow import MlflowClient
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It logs the trace of what it raises, which mlflow_client reports in one line.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    return MlflowClient


def _remedy(reason: str, tracking_uri: str) -> str:
    host = urlsplit(tracking_uri).netloc
    if any(words in reason for words in _UNKNOWN_HOST):
        return f"There is no host {host}: correct MLFLOW_TRACKING_URI or --mlflow-tracking-uri."
    if "Invalid Host header" in reason:
        return f"Start the MLflow server with --allowed-hosts {host}, beside its other names."
    return "Check that it runs, has room, and that --mlflow-tracking-uri points at it."
