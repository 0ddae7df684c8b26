"""A client of the Kubernetes API, and its failures as one line each."""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from kubernetes.client import ApiClient, ApiException, Configuration, CoreV1Api
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
from urllib3.exceptions import HTTPError
from websocket import WebSocketBadStatusException
from yaml import YAMLError

from lora_assets.bounded_calls import within
from lora_assets.errors import LoraAssetsError

# For one read of a plain reply: the API server answers from memory.
_READ_S = 10.0
_REMEDIES = {
    400: "Correct VLLM_CONTAINER, or the selector that the pods are listed by.",
    403: "Give this process's account that right (commands: get and create of pods/exec, and "
    "the name of the Deployment in deploy/access/exec-policy.yaml).",
    404: "Look for the replicas again (pods get other names), and check VLLM_DEPLOYMENT.",
}
_Result = TypeVar("_Result")


def ask(call: Callable[..., _Result], *arguments: str, **options: str) -> _Result:
    """Return what a method of the client returns, within the time of a read and of a call."""
    return within(partial(call, *arguments, **options, _request_timeout=_READ_S))


def core_api() -> CoreV1Api:
    """Return a client by KUBECONFIG, this pod's account or ~/.kube/config.

    Raise LoraAssetsError where none of them leads to a cluster.
    """
    configuration = Configuration()
    configuration.retries = False  # Each would print a warning; a step's own retry does better.
    # Not the library's load_config: it prints, and turns to the pod's own cluster where the file
    # that KUBECONFIG names is missing.
    kubeconfig = os.environ.get("KUBECONFIG") or None
    try:
        if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            load_incluster_config(configuration)
        else:
            load_kube_config(kubeconfig, client_configuration=configuration, persist_config=False)
    except (ConfigException, OSError, YAMLError) as error:
        raise LoraAssetsError(
            f"There is no way to a Kubernetes cluster ({_first_line(str(error))})",
            "Set KUBECONFIG, or run in a pod with a service account.",
        ) from None
    return CoreV1Api(ApiClient(configuration))


@contextmanager
def api_errors(doing: str) -> Iterator[None]:
    """Say in one line, as LoraAssetsError, why the Kubernetes API did not do it."""
    try:
        yield
    except (HTTPError, TimeoutError) as error:
        raise LoraAssetsError(
            f"Can't {doing}: the Kubernetes API does not answer ({_first_line(str(error))})",
            "Check that the cluster is up and that the kubeconfig names it.",
        ) from None
    except (ApiException, AttributeError) as error:
        # Releases before 37 stumble over the body that a refused websocket's error has not.
        refused = error if isinstance(error, ApiException) else error.__context__
        if not isinstance(refused, ApiException):
            raise
        code, cause = _status(refused)
        remedy = _REMEDIES.get(code, "Check the cluster and the pod, then try again.")
        raise LoraAssetsError(f"Can't {doing}: {cause}", remedy) from None


def _status(error: ApiException) -> tuple[int, str]:
    """Return the HTTP status (0 without one) and what the API server says, without any header."""
    code, body = int(error.status or 0), error.body or ""
    handshake = error.__context__
    if isinstance(handshake, WebSocketBadStatusException):
        code = handshake.status_code
        body = (handshake.resp_body or b"").decode(errors="replace")
    message = re.search(r'"message":\s*("(?:[^"\\]|\\.)*")', body)
    if message:
        return code, _first_line(json.loads(message[1]))
    return code, f"it answered {code}" if code else _first_line(str(error.reason))


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:300].rstrip(": ")
