"""Which run counts where several were launched for one request.

Dagster has no launch that is done at most once: two attempts at a step that overlap may both
find no run, and both launch one. The run that was created first counts, for everyone, and
whoever sees another one terminates it. The first is never terminated that way, whatever was
visible to whom when; and the queue's limit of one run per request (dagster.yaml) keeps
the others from their work until they are.
"""

from collections.abc import Sequence

from lora_assets.remote.webserver import Run


def first(runs: Sequence[Run]) -> Run | None:
    """Return the launched run that counts; None without any."""
    return min(_launched(runs), key=lambda run: (run.created, run.run_id), default=None)


def surplus(runs: Sequence[Run]) -> Sequence[Run]:
    """Return the launched runs that don't count and have not ended."""
    counts = first(runs)
    return [run for run in _launched(runs) if run != counts and not run.ended]


def current(runs: Sequence[Run]) -> Run | None:
    """Return the run that counts, or the last of those that Dagster launched to retry it."""
    by_id = {run.run_id: run for run in runs}
    run, again = None, first(runs)
    while again is not None:
        run, again = again, by_id.get(again.tags.get("dagster/auto_retry_run_id", ""))
    return run


def _launched(runs: Sequence[Run]) -> Sequence[Run]:
    """Leave out runs that Dagster or a person made from another one: they carry its tags."""
    return [run for run in runs if run.parent is None]
