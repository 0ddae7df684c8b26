"""One request's run on a remote Dagster: found or launched, followed, and terminated."""

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Event
from types import FrameType

from lora_assets.errors import ConnectionLost, LoraAssetsError, Stopped
from lora_assets.lifecycle import run_failed
from lora_assets.records.run_outcome import GateOutcome, RunFailed, StepError
from lora_assets.remote.attempts import current, surplus
from lora_assets.remote.log import RunEvent
from lora_assets.remote.webserver import PAUSES, DagsterWebserver, Run
from lora_assets.stop_signals import handled_by

POLL_SECONDS = 1.0
NOTHING_LAUNCHED = "nothing was launched"


class Stop(Event):
    """A flag that a signal sets; `number` is that of the signal."""

    number: int = signal.SIGTERM

    @contextmanager
    def before_launch(self) -> Iterator[None]:
        """Raise Stopped for an error of the block once this is set: that is not why it ends."""
        try:
            yield
        except LoraAssetsError:
            if self.is_set():
                raise Stopped(self.number, NOTHING_LAUNCHED) from None
            raise


@contextmanager
def stop_signals() -> Iterator[Stop]:
    """Yield a flag that SIGTERM and SIGINT set, so that none falls between launch and reply."""
    stop = Stop()

    def handle(number: int, _: FrameType | None) -> None:
        stop.number = number
        stop.set()

    with handled_by(handle):
        yield stop


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
        """Return the run that was launched for this request, now or by an earlier attempt."""
        return current(self.dagster.runs(self.tags))

    def await_other(self, stop: Stop, seconds: float) -> Run | None:
        """Return the run that another step launches for this request; None after `seconds`.

        Return early when `stop` is set.
        """
        deadline = time.monotonic() + seconds
        while (run := self.find()) is None and (left := deadline - time.monotonic()) > 0:
            if stop.wait(min(POLL_SECONDS, left)):
                break
        return run

    def launch(self, launch: Callable[[], None], stop: Stop) -> None:
        """Launch, unless `stop` is set; launch again when the reply was lost and no run appeared.

        A request whose reply was lost may still be carried out: its run appears now, or later as
        a surplus one. Nor is one launched beside that of another step, which may have come while
        this one read its data.
        """
        for pause in (*PAUSES, None):
            if stop.is_set():
                if self._reply_lost:
                    return
                raise Stopped(stop.number, NOTHING_LAUNCHED)
            if self.find() is not None:
                return
            try:
                return launch()
            except ConnectionLost:
                self._reply_lost = True
                if self.find() is not None:
                    return
                if pause is None:
                    raise
                stop.wait(pause)

    def follow(
        self, stop: Stop, on_run: Callable[[Run], None], is_last: Callable[[RunEvent], bool]
    ) -> None:
        """Print the run's log until the run ends, or until an event `is_last`.

        Raise RunFailed for a run that failed, was terminated or deleted. When `stop` is set,
        terminate the run and raise Stopped.
        """
        log, looked_again = _Log(""), False
        while True:
            if stop.is_set():
                raise Stopped(stop.number, self.terminate())
            runs = self.dagster.runs(self.tags)
            run = current(runs)
            if run is None or (log.run_id and log.run_id not in [each.run_id for each in runs]):
                raise RunFailed((f"run {log.run_id} is gone: it was deleted in Dagster",))
            if run.run_id != log.run_id:
                log, looked_again = _Log(run.run_id), False
                self.say(f"run {self.dagster.link(run.run_id)}")
                on_run(run)
            for other in surplus(runs):
                if other.status != "CANCELING":
                    self.say(f"terminating run {other.run_id}: the same request has {run.run_id}")
                    self.dagster.terminate(other.run_id)
            for event in log.read(self.dagster):
                if event.shown is not None:
                    self.say(event.shown)
                if is_last(event):
                    return
            # Dagster writes that it will retry a failed run a moment after the run's end.
            if run.ended and (looked_again or run.status != "FAILURE"):
                return log.conclude(run, self.dagster.link(run.run_id))
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


class _Log:
    """A run's log as far as it was read, and its outcome so far."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self._cursor: str | None = None
        self._gates: list[GateOutcome] = []
        self._errors: list[StepError] = []
        self._last_words = "failed"

    def read(self, dagster: DagsterWebserver) -> Iterator[RunEvent]:
        """Yield the events that the run has logged since the last time."""
        more = True
        while more:
            part = dagster.events(self.run_id, self._cursor)
            self._cursor, more = part.cursor or None, part.more
            for event in part.events:
                if event.gate is not None:
                    self._gates.append(event.gate)
                if event.error is not None and event.kind == "ExecutionStepFailureEvent":
                    self._errors.append(event.error)
                if event.kind == "RunFailureEvent":
                    self._last_words = event.message or self._last_words
                yield event

    def conclude(self, run: Run, link: str) -> None:
        """Raise RunFailed unless the run ended well."""
        if run.status == "CANCELED":
            raise RunFailed((f"run {link} was terminated",))
        if run.status == "FAILURE":
            raise run_failed(self._gates, self._errors, f"run {link}: {self._last_words}")
