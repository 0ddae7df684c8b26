"""What a data version needs next: which assets, in which run, or why it waits."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from lora_assets.gates.promotion import version_order
from lora_assets.lifecycle import GateName
from lora_assets.records import Record
from lora_assets.records.progress import Progress

Phase = Literal["train", "serve"]

GATE_OF: Mapping[str, str | None] = {
    "training_data": "data_is_sound",
    "adapter": "quality_gate",
    "gate_result": None,
    "staged_deployment": "smoke_test",
    "eval_grades": "eval_gate",
    "perf_metrics": "perf_gate",
    "live_deployment": None,
}
"""The graph, in its order: each asset needs the one before it, past that one's gate."""

PHASES: Mapping[Phase, tuple[str, ...]] = {
    "train": ("training_data", "adapter", "gate_result"),
    "serve": ("staged_deployment", "eval_grades", "perf_metrics", "live_deployment"),
}
"""One run each: many versions train side by side, but the fleet has one candidate place."""

CAUSE_TAG = "lora_assets/cause"
"""The run tag of what was launched without a person; holds its NextRun's cause."""

COMPARISON = ("eval_grades", "perf_metrics")
COMPARING_GATES: tuple[GateName, ...] = ("eval_gate", "perf_gate")
PROMOTION = "live_deployment"

MAX_ATTEMPTS = 3
"""Runs on the same inputs that may end without a verdict before a person is needed."""

SECONDS_BETWEEN_ATTEMPTS = 30.0
"""A server that was killed is back by then, and its runs don't fail in a row meanwhile."""


class NextRun(Record):
    """The assets that a data version needs next, all in one run.

    `cause` names the inputs: the same cause again means the same work again.
    """

    data_version: str
    phase: Phase
    assets: tuple[str, ...]
    cause: str
    why: str


class Attempts(Record):
    """The runs that were launched for one cause; `since_last` in seconds.

    `waits_for_dagster` where Dagster's own run retries are to launch the next one.
    """

    launched: int
    since_last: float
    last_was_cancelled: bool
    waits_for_dagster: bool


def stopped_by(progress: Progress) -> str | None:
    """The gate that stopped a data version; None where none did."""
    return next((gate for gate, passed in progress.verdicts.items() if not passed), None)


def next_run(progress: Progress, live: str | None, automatic: bool) -> NextRun | None:
    """What is to be made next of one data version; None where nothing is, or a gate stopped it.

    An asset is due when it is missing, when its gate has not decided on it, or when the asset
    before it is newer. `live` is the data version that is live. Promotion is due once per
    data version, only if `automatic`, and not where it would replace a newer data version.
    A version that was there before the sensor is left alone until somebody works on it.
    """
    made = progress.made
    if progress.noted is not None and not any(n > progress.noted for n in made.values()):
        return None
    due: list[str] = []
    before = 0
    why = ""
    for asset, gate in GATE_OF.items():
        if asset == PROMOTION and (not automatic or asset in made or _is_older(progress, live)):
            break
        found = made.get(asset)
        if not due:
            why = _reason(asset, gate, found, before, progress)
        if why:
            due.append(asset)
        elif gate is not None and not progress.verdicts[gate]:
            return None
        else:
            before = found or 0
    if not due:
        return None
    phase: Phase = "train" if due[0] in PHASES["train"] else "serve"
    return NextRun(
        data_version=progress.data_version,
        phase=phase,
        assets=tuple(asset for asset in due if asset in PHASES[phase]),
        cause=f"{progress.data_version}/{due[0]}/{before}",
        why=why,
    )


def compare_again(
    progress: Progress,
    compared_with: Collection[str | None],
    live_digest: str | None,
    automatic: bool,
) -> NextRun | None:
    """The comparison of a data version that waits for its promotion, where live was replaced.

    `compared_with` are the live digests that its stored verdicts rest on.
    """
    lapsed = next((digest for digest in compared_with if digest != live_digest), live_digest)
    if lapsed == live_digest:
        return None
    now = live_digest[:12] if live_digest else "nothing"
    return NextRun(
        data_version=progress.data_version,
        phase="serve",
        assets=(*COMPARISON, *([PROMOTION] if automatic else [])),
        cause=f"{progress.data_version}/compare-{now}/{progress.made['staged_deployment']}",
        why=f"live is now {now}, it was compared with {lapsed[:12] if lapsed else 'nothing'}",
    )


def waiting_for_promotion(versions: Iterable[Progress], live: str | None) -> Sequence[Progress]:
    """The data versions past every gate that never were live and are newer than it, newest first.

    Only the first of them needs to be compared again when live changes: it goes live before
    the others, or a gate stops it and the next one is first.
    """
    waiting = [
        progress
        for progress in versions
        if (run := next_run(progress, live, automatic=True)) is not None
        and run.assets == (PROMOTION,)
    ]
    return sorted(waiting, key=lambda p: version_order(p.data_version), reverse=True)


def launches(wanted: Sequence[NextRun], serving: bool, most: int) -> Sequence[NextRun]:
    """Which of the runs to launch now: at most `most`, one at a time in the serving phase.

    `serving` says that a run of the serving phase is under way. The newest data version is
    served first, so that live moves as seldom as can be; versions train in their own order.
    """
    order = sorted(wanted, key=lambda run: version_order(run.data_version))
    serve = [run for run in order if run.phase == "serve"][-1:] if not serving else []
    return [*serve, *(run for run in order if run.phase == "train")][:most]


def is_for_a_person(attempts: Attempts | None) -> bool:
    """Whether a cause won't be launched again by itself."""
    if attempts is None or attempts.waits_for_dagster:
        return False
    return attempts.last_was_cancelled or attempts.launched >= MAX_ATTEMPTS


def may_launch(attempts: Attempts | None, stopped_by_a_person: bool) -> str | None:
    """Why a run may not be launched for a cause now; None when it may.

    A person stopped a data version where the newest of all its runs was cancelled, whoever
    launched that.
    """
    if stopped_by_a_person:
        return "was cancelled"
    if attempts is None:
        return None
    if attempts.waits_for_dagster:
        return "is tried again by Dagster"
    if attempts.last_was_cancelled:
        return "was cancelled"
    if attempts.launched >= MAX_ATTEMPTS:
        return f"gave up after {attempts.launched} runs"
    if attempts.since_last < SECONDS_BETWEEN_ATTEMPTS:
        return "waits before the next attempt"
    return None


def _is_older(progress: Progress, live: str | None) -> bool:
    return live is not None and version_order(progress.data_version) < version_order(live)


def _reason(
    asset: str, gate: str | None, found: int | None, before: int, progress: Progress
) -> str:
    if found is None:
        return f"{asset} is missing"
    if found < before:
        return f"{asset} is older than what it is made from"
    if gate is not None and gate not in progress.verdicts:
        return f"{gate} has not decided"
    return ""
