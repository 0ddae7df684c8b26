"""One request's run on a remote Dagster: found or launched, followed, and terminated."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Event as Flag

from lora_assets.errors import ConnectionLost
from lora_assets.records.run_outcome import Gate, RunFailed, StepError, failure
from lora_assets.remote.attempts import current, surplus
from lora_assets.remote.log import RunEvent
from lora_assets.remote.webserver import PAUSES, DagsterWebserver, Run

POLL_SECONDS = 1.0


@contextmanager
def stop_signals() -> Iterator[Flag]:
    """A flag that SIGTERM and SIGINT set, so that neither falls between a launch and its reply."""
    stop = Flag()
    handlers = {
        name: signal.signal(name, lambda *_: stop.set()) for name in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield stop
    finally:
        for name, handler in handlers.items():
            signal.signal(name, handler)


class RemoteRun:
    """The runs with a request's tags, of which one counts (see attempts)."""

    def __init__(
        self, dagster: DagsterWebserver, tags: Mapping[str, str], say: Callable[[str], None]
    ) -> None:
        self.dagster = dagster
        self.tags = tags
        self.say = say
        self._reply_lost = False

    def find(self) -> Run | None:
        """The run that was launched for this request, now or by an earlier attempt."""
        return current(self.dagster.runs(self.tags))

    def await_other(self, stop: Flag, seconds: float) -> Run | None:
        """Return the run that another step launches for this request; None after `seconds`.

        Returns early when `stop` is set.
        """
        deadline = time.monotonic() + seconds
        while (run := self.find()) is None and (left := deadline - time.monotonic()) > 0:
            if stop.wait(min(POLL_SECONDS, left)):
                break
        return run

    def launch(self, launch: Callable[[], None], stop: Flag) -> None:
        """Launch, unless to stop comes first; again when the reply was lost, and no run is there.

        Where the request was carried out in spite of a lost reply, its run is there, or comes
        later and is then one too many.
        """
        for pause in (*PAUSES, None):
            if stop.is_set() and not self._reply_lost:
                raise RunFailed(("stopped before anything was launched",), None)
            if stop.is_set():
                return
            try:
                launch()
                return
            except ConnectionLost:
                self._reply_lost = True
                if self.find() is not None:
                    return
                if pause is None:
                    raise
                stop.wait(pause)

    def follow(
        self, stop: Flag, on_run: Callable[[Run], None], is_last: Callable[[RunEvent], bool]
    ) -> None:
        """Print what the run logs until it ends, or an event `is_last`.

        Raises RunFailed for a run that failed, was terminated or deleted, and when `stop` is set:
        then the run is terminated.
        """
        followed, log, looked_again = "", _Log(), False
        while True:
            if stop.is_set():
                raise RunFailed((f"stopped; {self.terminate()}",), None)
            runs = self.dagster.runs(self.tags)
            run = current(runs)
            if run is None or (followed and followed not in [each.run_id for each in runs]):
                raise RunFailed((f"run {followed} is gone: it was deleted in Dagster",), None)
            if run.run_id != followed:
                followed, log, looked_again = run.run_id, _Log(), False
                self.say(f"run {self.dagster.link(run.run_id)}")
                on_run(run)
            for other in surplus(runs):
                if other.status != "CANCELING":
                    self.say(f"terminating run {other.run_id}: the same request has {run.run_id}")
                    self.dagster.terminate(other.run_id)
            for event in self._new(run.run_id, log):
                if event.shown is not None:
                    self.say(event.shown)
                if is_last(event):
                    return
            # That Dagster will retry a failed run is written a moment after its end.
            if run.ended and (looked_again or run.status != "FAILURE"):
                log.conclude(run, self.dagster.link(run.run_id))
                return
            looked_again = run.ended
            stop.wait(POLL_SECONDS)

    def terminate(self) -> str:
        """End every run with these tags, and say which those were."""
        links: Sequence[str] = ()
        for pause in PAUSES:
            runs = self.dagster.runs(self.tags)
            left = [run for run in runs if not run.ended]
            links = links or [self.dagster.link(run.run_id) for run in left]
            for run in left:
                if run.status != "CANCELING":
                    self.dagster.terminate(run.run_id)
            coming = self._reply_lost and not runs
            if not coming and all(run.status == "CANCELING" for run in left):
                return f"terminated {', '.join(links) or 'nothing'}"
            time.sleep(pause)
        for run in left:
            self.dagster.terminate(run.run_id, at_once=True)
        return f"marked {', '.join(links)} as canceled"

    def _new(self, run_id: str, log: "_Log") -> Iterator[RunEvent]:
        more = True
        while more:
            part = self.dagster.events(run_id, log.cursor)
            log.cursor, more = part.cursor or None, part.more
            for event in part.events:
                log.add(event)
                yield event


class _Log:
    """What a run's log has said of its outcome so far."""

    def __init__(self) -> None:
        self.cursor: str | None = None
        self.gates: list[Gate] = []
        self.errors: list[StepError] = []
        self.last_words = ""

    def add(self, event: RunEvent) -> None:
        if event.gate is not None:
            self.gates.append(event.gate)
        if event.error is not None and event.kind == "ExecutionStepFailureEvent":
            self.errors.append(event.error)
        if event.kind in ("RunFailureEvent", "RunCanceledEvent"):
            self.last_words = event.message

    def conclude(self, run: Run, link: str) -> None:
        """Raise RunFailed unless the run ended well."""
        if run.status == "CANCELED":
            raise RunFailed((f"run {link} was terminated",), None)
        if run.status == "FAILURE":
            raise failure(self.gates, self.errors, f"run {link}: {self.last_words or 'failed'}")
