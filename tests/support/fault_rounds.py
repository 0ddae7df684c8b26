"""Operations with a fault each, left to repair themselves, and what became of them."""

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from time import perf_counter
from typing import get_args

import dagster as dg

from lora_assets.errors import LoraAssetsError
from lora_assets.gates.smoke import PROMPTS
from lora_assets.records.served import LIVE_SLOT
from tests.support.clients import asking
from tests.support.dagster_services import until
from tests.support.faulty_operations import (
    CALLS,
    GO,
    GO_ON,
    AtMlflow,
    AtPod,
    Fault,
    Meant,
    Operation,
    start,
)
from tests.support.pod import NOT_READY, starting_pod
from tests.support.repairs import Watch
from tests.support.replicas import Stack

OPERATIONS: Sequence[Operation] = ("promotion", "rollback", "deployment", "repair")
AT_MLFLOW: Sequence[Fault] = get_args(AtMlflow)
AT_VLLM: Sequence[Fault] = (*AT_MLFLOW, "empty reply", "replica lost")
REPAIRS = 4
"""Ticks of the sensor after which what is still wrong counts as stuck: 80 seconds' worth."""

KILLED = -9
TWO_WRITERS = ("second writer", "paused")
"""Another operation comes while this one goes on; or it comes and ends while this one stands."""


@dataclass(frozen=True)
class Outcome:
    """What became of one injection; `wrong` is empty where all ended right.

    Clients got `answers` meanwhile.
    """

    operation: Operation
    call: str
    fault: Fault
    wrong: str
    is_stuck: bool
    seconds: float
    answers: int


@dataclass
class Rounds:
    """Injections on one stack, one after the other; each begins where everything is right."""

    stack: Stack
    instance: dg.DagsterInstance
    outcomes: list[Outcome] = field(default_factory=list)
    number: int = 0

    @property
    def home(self) -> Path:
        return self.stack.home

    def begin(self) -> None:
        """Make two data versions live, one after the other."""
        for _ in range(2):
            self.number += 1
            self.stack.stage(self.number)
            self.stack.promote(self.number)

    def calls(self, operation: Operation) -> Sequence[str]:
        """Return the calls of an operation to which nothing happens, in order."""
        outcome = self.inject(operation, Meant(), "none")
        assert not outcome.wrong, outcome
        calls = (self.home / CALLS).read_text().splitlines()
        assert {call.split()[0] for call in calls} == {"vLLM", "MLflow"}, "a neighbour is not seen"
        return calls

    def inject(self, operation: Operation, meant: Meant, call: str) -> Outcome:
        """Do an operation with a fault; repair; look at what became of it."""
        number = self._prepare(operation)
        registry = self.stack.resources.registry
        allowed = {version.version for version in registry.aliases().values()}
        ours = self._for_clients(operation, number, meant.fault)
        for left in (CALLS, GO, GO_ON, NOT_READY):
            (self.home / left).unlink(missing_ok=True)
        with ExitStack() as pod, asking(self.stack) as answers:
            exitcode = self._operate(operation, number, meant, pod)
            # Before any sensor looks, a pod that gets ready serves what is live, and one that was
            # paused has changed nothing of what the other one did.
            is_well = exitcode == 0 and meant.fault in get_args(AtPod)
            late = self._drift() if is_well or meant.fault == "paused" else ""
            began = perf_counter()
            self._restart_dead()
            if exitcode == KILLED and operation != "repair":
                # As run monitoring takes up a run whose worker was lost.
                start(operation, number, self.stack.environment, self.home, Meant()).join()
            is_stuck = not self._repaired()
            seconds, wrong = perf_counter() - began, late + self._wrong(allowed)
        if not answers.keys() <= ours:
            wrong = f"{wrong}; clients were answered by {dict(answers)}, not only by {ours}"
        outcome = Outcome(operation, call, meant.fault, wrong, is_stuck, seconds, answers.total())
        self.outcomes.append(outcome)
        return outcome

    def _operate(
        self, operation: Operation, number: int, meant: Meant, pod: ExitStack
    ) -> int | None:
        resources, given = self.stack.resources, (self.stack.environment, self.home)
        if meant.fault == "replica not ready":
            pod.enter_context(starting_pod(self.home, resources)).await_ready()
        process = start(operation, number, *given, meant)
        other = self._second(operation) if meant.fault in TWO_WRITERS else None
        if meant.fault in ("replica starting", "paused"):
            until(lambda: (self.home / GO).exists() or not process.is_alive(), "the call")
        if meant.fault == "replica starting":
            started = pod.enter_context(starting_pod(self.home, resources))
        elif meant.fault == "paused" and other is not None:
            (self.home / GO).touch()
            other.join()
        (self.home / GO_ON).touch()
        process.join()
        # Where the call never came, the other one comes now.
        (self.home / GO).touch()
        (self.home / NOT_READY).unlink(missing_ok=True)
        if meant.fault == "replica starting":
            started.await_ready()
        if other is not None:
            other.join()
        return process.exitcode

    def _for_clients(self, operation: Operation, number: int, fault: Fault) -> set[str]:
        """Return the digests that may answer a client: live before, and what is to be live."""
        aliases = self.stack.resources.registry.aliases()
        ours, second = {aliases["live"].digest}, fault in TWO_WRITERS
        if operation == "promotion" or (second and operation == "rollback"):
            ours.add(self.stack.adapter(number).digest)
        if operation == "rollback" or second:
            ours.add(aliases["previous"].digest)
        return ours

    def _prepare(self, operation: Operation) -> int:
        if operation == "rollback":
            # What was rolled back is not made live again, so there must be something newer.
            self.begin()
        if operation == "repair":
            first = self.stack.servers[0]
            first.kill()
            first.start()
            return self.number
        self.number += 1
        self.stack.stage(self.number)
        return self.number

    def _second(self, operation: Operation) -> ForkServerProcess:
        """Start a rollback, or for a rollback a promotion, that waits for the fault's call."""
        second: Operation = "promotion" if operation == "rollback" else "rollback"
        return start(second, self.number, self.stack.environment, self.home, Meant(), waits=True)

    def _restart_dead(self) -> None:
        for server in self.stack.servers:
            if not server.runs:
                server.start()

    def _repaired(self) -> bool:
        watch = Watch(self.stack.resources, self.instance)
        for _ in range(REPAIRS):
            self._restart_dead()
            try:
                tick = watch.tick()
            except LoraAssetsError:
                # A replica that was killed a moment ago had not ended yet; the next tick sees it.
                continue
            if isinstance(tick, dg.SkipReason):
                return "Every replica serves" in str(tick.skip_message)
            with suppress(LoraAssetsError):
                watch.repair()
        return False

    def _wrong(self, allowed: set[int]) -> str:
        registry = self.stack.resources.registry
        standing, found = registry.standing(), []
        live = standing.live
        if live is None or live.version not in allowed:
            found.append(f"live is {live and live.version}, not one of {sorted(allowed)}")
        if standing.unfinished is not None:
            found.append(f"unfinished: {standing.unfinished.action}")
        if standing.alias_drift:
            found.append(standing.alias_drift)
        numbers = [entry.number for entry in standing.history]
        if numbers != sorted(set(numbers)):
            found.append(f"the history's numbers are {numbers}")
        if live is not None:
            found += filter(None, [self._drift()])
            (known,) = (each for each in self.stack.adapters if each.digest == live.digest)
            self.stack.assert_answers(known, 0)
        return "; ".join(found)

    def _drift(self) -> str:
        live, replicas = self.stack.resources.registry.standing().live, self.stack.replicas()
        for replica in replicas.members:
            # What a folder names alone is loaded, and listed, once it is asked for.
            replica.complete(LIVE_SLOT, PROMPTS[0], 1)
        wanted, served = live and live.digest, replicas.serving(LIVE_SLOT)
        return "" if {*served.values()} == {wanted} else f"{served} are served, live is {wanted}; "
