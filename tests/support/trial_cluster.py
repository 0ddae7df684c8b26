"""The trial cluster that `make trial` made, by kubectl and argo."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import time
from typing import Any

import yaml

from tests.support.argo_workflows import WORKFLOWS, defaults_of
from tests.support.dagster_services import until
from tests.support.manifests import DEPLOY

KUBECTL = os.environ.get("KUBECTL", "kubectl").split()
ARGO = os.environ.get("ARGO", "argo").split()
IN_CLIENT = ("-n", "client", "exec", "-i", "deploy/client", "--")
LOAD = Path(__file__).parents[1] / "trial" / "load.py"
PARAMETERS = DEPLOY / "trial" / "parameters.yaml"
ENDED = ("Succeeded", "Failed", "Error")

Object = Mapping[str, Any]


def run(words: Sequence[str], given: str | None = None) -> str:
    """Return what a command printed that ended well."""
    ended = subprocess.run(words, capture_output=True, text=True, input=given, check=False)
    assert ended.returncode == 0, f"{' '.join(words)}: {ended.stderr}"
    return ended.stdout


def kubectl(*words: str, given: str | None = None) -> str:
    return run([*KUBECTL, *words], given)


def pods(namespace: str, *labels: str) -> list[Object]:
    """Return the pods with these labels that are neither ended nor ending."""
    listed = kubectl("-n", namespace, "get", "pods", "-l", ",".join(labels), "-o", "json")
    items: list[Object] = json.loads(listed)["items"]
    return [
        pod
        for pod in items
        if pod["status"]["phase"] not in ENDED and "deletionTimestamp" not in pod["metadata"]
    ]


def names(found: Sequence[Object]) -> set[str]:
    return {pod["metadata"]["name"] for pod in found}


def replicas() -> set[str]:
    return names(pods("ml-models", "app=vllm"))


def rolled_out(namespace: str, deployment: str) -> None:
    """Wait until every pod of the Deployment is the new one, and ready."""
    kubectl("-n", namespace, "rollout", "status", f"deploy/{deployment}", "--timeout", "900s")


@dataclass(frozen=True)
class Training:
    """A workflow whose training runs: its pod, and the Dagster run that the pod belongs to."""

    workflow: str
    pod: str
    run_id: str

    @property
    def status(self) -> Object:
        read = kubectl("-n", "ml-models", "get", "workflow", self.workflow, "-o", "json")
        status: Object = json.loads(read).get("status", {})
        return status

    def pods(self, component: str) -> set[str]:
        """Return its pods that are a `run_worker`, or a `step_worker`."""
        labels = (f"dagster/run-id={self.run_id}", f"app.kubernetes.io/component={component}")
        return names(pods("dagster", *labels))

    def phase(self, seconds: float = 1800) -> str:
        """Return how the workflow ended."""
        until(lambda: self.status.get("phase") in ENDED, f"the end of {self.workflow}", seconds)
        return str(self.status["phase"])


def training() -> Training:
    """Start a training and return once its pod runs."""
    # A rate that no training had before: one that was done is not done again.
    rate = 0.003 + time() % 1e6 * 1e-10
    given = {**yaml.safe_load(PARAMETERS.read_text()), "learning-rate": str(rate)}
    submit = ["-n", "ml-models", "submit", "--from", "workflowtemplate/train-validate-lora"]
    for name in defaults_of(WORKFLOWS["train-validate-lora"]).keys() & given.keys():
        submit += ["-p", f"{name}={given[name]}"]
    workflow = run([*ARGO, *submit, "-o", "name"]).strip()

    def running() -> Object | None:
        found = pods("dagster", "dagster/op=adapter", "app.kubernetes.io/component=step_worker")
        return next((pod for pod in found if pod["status"]["phase"] == "Running"), None)

    pod = until(running, f"the training pod of {workflow}", 900)["metadata"]
    return Training(workflow, pod["name"], pod["labels"]["dagster/run-id"])


@dataclass
class Answers:
    """What the load got: answers by the model that gave them, and what failed."""

    models: Mapping[str, int] = field(default_factory=dict)
    failures: Sequence[str] = ()


@contextmanager
def under_load() -> Iterator[Answers]:
    """Ask live without a pause within the block; the answers are known after it."""
    answers = Answers()
    command = [*KUBECTL, *IN_CLIENT, "python", "-c", LOAD.read_text()]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=-1) as client:
        try:
            yield answers
        finally:
            printed, _ = client.communicate(timeout=120)
    counted = json.loads(printed)
    answers.models, answers.failures = counted["models"], counted["failures"]
