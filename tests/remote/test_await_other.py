from collections.abc import Mapping, Sequence

from lora_assets.remote.run import RemoteRun, Stop
from lora_assets.remote.webserver import DagsterWebserver, Run

RUN = Run(run_id="a", status="QUEUED", created=1.0, parent=None, tags={})


class LaunchedElsewhere(DagsterWebserver):
    """A Dagster that has no run until it was asked `polls` times; then `stop` is set, if given."""

    def __init__(self, polls: int, stop: Stop | None = None) -> None:
        super().__init__("http://dagster.test", "http://dagster.test")
        self.polls, self.stop = polls, stop

    def runs(self, tags: Mapping[str, str]) -> Sequence[Run]:
        self.polls -= 1
        if self.polls == 0 and self.stop is not None:
            self.stop.set()
        return [RUN] if self.polls < 0 else []


def await_other(dagster: LaunchedElsewhere, stop: Stop, seconds: float) -> Run | None:
    return RemoteRun(dagster, {}, print).await_other(stop, seconds)


def test_the_run_that_another_step_launches_is_awaited() -> None:
    assert await_other(LaunchedElsewhere(polls=1), Stop(), 60) == RUN


def test_a_run_that_another_step_has_launched_meanwhile_is_not_launched_once_more() -> None:
    launched: list[str] = []
    for polls in (0, 1):
        remote = RemoteRun(LaunchedElsewhere(polls), {}, print)
        remote.launch(lambda: launched.append("by this step"), Stop())
        assert len(launched) == polls


def test_waiting_for_another_run_ends_in_time_or_with_a_stop_signal() -> None:
    assert await_other(LaunchedElsewhere(polls=9), Stop(), 0.01) is None
    stop = Stop()
    dagster = LaunchedElsewhere(polls=1, stop=stop)
    assert await_other(dagster, stop, 3600) is None
    assert dagster.polls == 0
