"""MLflow's client: imported when a step needs it, quiet, bounded in time, failing in one line."""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from lora_assets.bounded_calls import MOST_REPLY_BYTES, within
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

_FOLDERS = {"log_artifacts": 1, "download_artifacts": 2}
"""The methods that move files, and which of their arguments is the folder here."""

NAME = r"^\w[\w .@+-]{0,99}$"
"""What an experiment, whose name is a folder too, or a registered model may be called."""

_PASSWORDS = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
_UNKNOWN_HOST = ("Name or service not known", "No address associated with hostname")
"""What the C library says of a host that does not exist; a resolver that is down says another."""


class NotInMlflow(LoraAssetsError):
    """What was asked for by its id is not there, or no longer."""


class _Reported:
    """A client that raises what fails in a call as a LoraAssetsError naming the server."""

    def __init__(self, client: "MlflowClient", tracking_uri: str) -> None:
        self._client, self._tracking_uri = client, tracking_uri

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def called(*arguments: Any, **named: Any) -> Any:
            asked = partial(method, *arguments, **named)
            if name in _FOLDERS:
                return within(asked, partial(bytes_in, Path(arguments[_FOLDERS[name]])))
            return within(asked)

        return mlflow_errors(self._tracking_uri)(called)


def mlflow_client(tracking_uri: str) -> "MlflowClient":
    """Return a client; a call of its methods that fails raises one LoraAssetsError."""
    refuse_elsewhere(tracking_uri)
    client_class = _import_client()
    with mlflow_errors(tracking_uri):
        client = client_class(tracking_uri, tracking_uri)
    return cast("MlflowClient", _Reported(client, tracking_uri))


def refuse_elsewhere(uri: str) -> None:
    """Refuse an MLflow at another origin than $MLFLOW_TRACKING_URI's, whose password it'd get."""
    home, asked = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", "")), urlsplit(uri)
    has_password = any(os.environ.get(name) for name in _PASSWORDS)
    # The proxy of artifacts has no scheme of its own, and without a host it is the server's.
    scheme = home.scheme if asked.scheme == "mlflow-artifacts" and asked.netloc else asked.scheme
    is_server = scheme in ("http", "https")
    if has_password and is_server and (scheme, asked.netloc) != (home.scheme, home.netloc):
        raise LoraAssetsError(
            f"MLflow's password is for {home.netloc or 'no server'}, not for {asked.netloc}",
            "Set MLFLOW_TRACKING_URI with the password of that server, or give none.",
        )


@contextmanager
def mlflow_errors(tracking_uri: str) -> Iterator[None]:
    """Raise what fails in the block as a LoraAssetsError naming the server."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        is_gone = getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST"
        raise (NotInMlflow if is_gone else LoraAssetsError)(
            f"MLflow at {tracking_uri} failed ({reason})", _remedy(reason, tracking_uri)
        ) from None


def bytes_in(folder: Path) -> int:
    """Return how many bytes the files of a folder have, whether or not it is there already."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def _bound_replies() -> None:
    """Give each reply of MLflow's HTTP client a deadline as a whole and a size: it has neither.

    The calls that MLflow makes by itself are bounded like this too, such as a run's end and what
    it logs of the machine. It takes no other client, so the class of its adapter is replaced.
    """
    from mlflow.utils import request_utils
    from requests import PreparedRequest, Response

    class Bounded(request_utils.TCPKeepAliveHTTPAdapter):
        def send(
            self, request: PreparedRequest, stream: bool = False, *_: Any, **options: Any
        ) -> Response:
            def reply() -> Response:
                response = send(request, stream=True, **options)
                if not stream:
                    response.raw = _whole(response.raw)
                return response

            send = super().send
            return within(reply, lambda: int(request.headers.get("Content-Length", 0)))

    request_utils.TCPKeepAliveHTTPAdapter = Bounded  # type: ignore[misc]


def _whole(reply: Any) -> BytesIO:
    content = reply.read(MOST_REPLY_BYTES + 1, decode_content=True)
    if len(content) > MOST_REPLY_BYTES:
        raise OSError(f"the reply has more than {MOST_REPLY_BYTES >> 20} MiB")
    return BytesIO(content)


@cache
def _import_client() -> type["MlflowClient"]:
    """Import what takes longer than all else that a light step does, once a process."""
    with heavy_imports():
        from mlflow import MlflowClient
    _bound_replies()
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It logs the trace of what it raises, which mlflow_client reports in one line.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    return MlflowClient


def _remedy(reason: str, tracking_uri: str) -> str:
    host = urlsplit(tracking_uri).netloc
    if any(words in reason for words in _UNKNOWN_HOST):
        return f"There is no host {host}: correct MLFLOW_TRACKING_URI or --mlflow-tracking-uri."
    if "No module named" in reason:
        return "Install that driver of the database, or give an MLflow server's URL."
    if "Invalid Host header" in reason:
        return f"Start the MLflow server with --allowed-hosts {host}, beside its other names."
    if re.search("not authenticated|Permission denied", reason):
        return "Give MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD of one who may."
    if re.search("Run with id=.* not found", reason):
        return "Check its id. If the run was deleted in MLflow, train its data version again."
    return "Check that it runs, has room, and that --mlflow-tracking-uri points at it."
