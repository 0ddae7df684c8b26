"""An operation on the fleet, in a process of its own, with a fault at one of its calls.

Its calls are those to a model server and to MLflow, counted in order. A process is forked from a
server that has nothing open, so that it can be killed like any other.
"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from threading import Lock
from typing import Any, Literal, Self

import dagster as dg
import httpx
from mlflow.exceptions import MlflowException

from lora_assets.assets.rollback import rollback
from lora_assets.assets.staged_deployment import staged_deployment
from lora_assets.resources.fleet import Fleet
from lora_assets.resources.mlflow_client import _Reported, mlflow_errors
from lora_assets.sensors.replica_repair import repair_replicas
from lora_assets.settings import read_settings
from lora_assets.stack_resources import Resources, make_resources
from tests.support.dagster_services import until
from tests.support.pod import NOT_READY, discovering_the_pod
from tests.support.promotions import gate_result, run_promotion
from tests.support.replicas import kill_family

Operation = Literal["deployment", "promotion", "rollback", "repair"]
AtPod = Literal["replica not ready", "replica starting"]
AtMlflow = Literal[
    "killed before", "killed after", "error", "away", "reply lost", "second writer", "paused", AtPod
]
Fault = Literal[AtMlflow, "none", "empty reply", "replica lost", "clock"]
CALLS, GO, GO_ON = "calls", "go", "go-on"
CLOCK_S = -60
PATIENCE_S = 600

_PROCESSES = get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tests.support.faulty_operations"])


@dataclass(frozen=True)
class Meant:
    """A fault at call `at`, counted from 0; `victim` is the process of the replica that is lost."""

    fault: Fault = "none"
    at: int = -1
    victim: int = 0


def start(
    operation: Operation,
    number: int,
    environment: Mapping[str, str],
    home: Path,
    meant: Meant,
    *,
    waits: bool = False,
) -> ForkServerProcess:
    """Start an operation on data version `number`; with `waits`, once `home`/go is there.

    Each of its calls has a line in `home`/calls.
    """
    given = (operation, number, dict(environment), home, meant, waits)
    process = _PROCESSES.Process(target=_operate, args=given)
    process.start()
    return process


def _operate(
    operation: Operation,
    number: int,
    environment: Mapping[str, str],
    home: Path,
    meant: Meant,
    waits: bool,
) -> None:
    os.environ.update(environment)
    log = (home / "operation.log").open("ab", buffering=0)
    for stream in (1, 2):
        os.dup2(log.fileno(), stream)
    if waits:
        until((home / GO).exists, "the other operation", PATIENCE_S)
    else:
        _arm(_Calls(home, meant))
    if meant.fault == "clock":
        _set_clock()
    Fleet.discover = discovering_the_pod(home)  # type: ignore[method-assign, assignment]
    run(make_resources(read_settings(environment)), operation, number)


def run(resources: Resources, operation: Operation, number: int) -> None:
    """Do it as Dagster does; an error ends the process with a trace and 1."""
    given = {name: getattr(resources, name) for name in ("registry", "fleet", "work_folder")}
    if operation == "promotion":
        run_promotion(resources, str(number), run_id=f"{number:08d}-0000-4000-8000-000000000000")
        return
    with dg.DagsterInstance.ephemeral() as instance:
        if operation == "rollback":
            rollback.execute_in_process(instance=instance, resources=given)
        elif operation == "repair":
            repair_replicas.execute_in_process(instance=instance, resources=given)
        else:
            instance.add_dynamic_partitions("data_version", [str(number)])
            dg.materialize(
                [gate_result, staged_deployment],
                instance=instance,
                partition_key=str(number),
                resources=vars(resources),
            )


class _Calls:
    """Count calls, and have the fault happen at one of them."""

    def __init__(self, home: Path, meant: Meant) -> None:
        self._home, self._meant = home, meant
        self._number, self._lock = -1, Lock()

    def before(self, name: str) -> Fault:
        """Count a call, and return what is to happen to it, once it has the fault before it."""
        with self._lock:
            self._number += 1
            is_meant = self._number == self._meant.at
            with (self._home / CALLS).open("a") as file:
                file.write(f"{name}\n")
        fault = self._meant.fault if is_meant else "none"
        match fault:
            case "killed before":
                os.kill(os.getpid(), signal.SIGKILL)
            case "replica lost":
                kill_family(self._meant.victim)
            case "second writer":
                (self._home / GO).touch()
            case "replica not ready":
                (self._home / NOT_READY).touch()
            case "replica starting":
                (self._home / GO).touch()
                until((self._home / GO_ON).exists, "the init container", PATIENCE_S)
        return fault

    def after(self, fault: Fault) -> None:
        if fault == "killed after":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "paused":
            (self._home / GO).touch()
            until((self._home / GO_ON).exists, "the end of the other operation", PATIENCE_S)


def _arm(calls: _Calls) -> None:
    send = httpx.AsyncClient.send

    async def sent(client: httpx.AsyncClient, request: httpx.Request, **options: Any) -> Any:
        fault = calls.before(f"vLLM {request.method} {request.url.path}")
        match fault:
            case "error":
                return httpx.Response(500, text="a fault", request=request)
            case "empty reply":
                return httpx.Response(200, text="", request=request)
            case "away":
                raise httpx.ConnectError("the fault that was asked for", request=request)
        reply = await send(client, request, **options)
        calls.after(fault)
        if fault == "reply lost":
            raise httpx.ReadError("the fault that was asked for", request=request)
        return reply

    httpx.AsyncClient.send = sent  # type: ignore[method-assign, assignment]

    def reported(client: Any, name: str) -> Any:
        inner = getattr(client._client, name)

        def called(*arguments: Any, **named: Any) -> Any:
            fault = calls.before(f"MLflow {name}")
            if fault in ("error", "away"):
                raise MlflowException(f"API request failed: {fault}")
            done = inner(*arguments, **named)
            calls.after(fault)
            if fault == "reply lost":
                raise MlflowException("Connection aborted: no reply")
            return done

        return mlflow_errors(client._tracking_uri)(called)

    _Reported.__getattr__ = reported  # type: ignore[method-assign]


class _Slow(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return super().now(tz) + timedelta(seconds=CLOCK_S)


def _set_clock() -> None:
    ours = [module for name, module in sys.modules.items() if name.startswith("lora_assets.")]
    clocks: Sequence[Any] = [each for each in ours if getattr(each, "datetime", None) is datetime]
    assert clocks, "no module reads the clock"
    for module in clocks:
        module.datetime = _Slow
