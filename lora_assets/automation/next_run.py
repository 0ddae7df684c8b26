"""What a data version needs next: which assets, in which run, or why it waits."""

from collections.abc import Collection, Iterable, Sequence

from lora_assets.lifecycle import PROMOTION, STAGES, Phase, Stage
from lora_assets.records import Record, short
from lora_assets.records.dataset import older_by_name, version_order
from lora_assets.records.progress import Progress

CAUSE_TAG = "lora_assets/cause"
"""The tag of a run that the sensor launched: its NextRun's cause."""

COMPARISON = tuple(
    stage for stage in STAGES.values() if stage.gate is not None and stage.gate.compares_with_live
)
"""The stages to repeat when live changes."""

MAX_ATTEMPTS = 3
"""Runs on the same inputs without a verdict, after which a person has to relaunch."""

SECONDS_BETWEEN_ATTEMPTS = 30.0
"""Enough for a killed server to come back, so that its runs don't fail in a row."""


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
    """Return the gate that stopped a data version; None if no gate did."""
    return next((gate for gate, passed in progress.verdicts.items() if not passed), None)


def is_untouched(progress: Progress) -> bool:
    """Return whether a version was there before the sensor, and nobody has worked on it since."""
    baseline = progress.baseline_event_id
    return baseline is not None and not any(made > baseline for made in progress.made.values())


def next_run(progress: Progress, live: str | None, automatic: bool) -> NextRun | None:
    """Return the run that a data version needs next; None if none is due or a gate stopped it.

    An asset is due when it is missing, when its gate has not decided on it, or when the asset
    before it is newer. `live` is the data version that is live. Promotion is due once per
    data version, only if `automatic`, and never to replace a newer data version.
    A version that was there before the sensor waits until somebody works on it.
    """
    if is_untouched(progress):
        return None
    made = progress.made
    is_older = live is not None and bool(older_by_name(progress.data_version, live))
    due: list[Stage] = []
    before = 0
    why = ""
    for asset, stage in STAGES.items():
        if asset == PROMOTION and (not automatic or asset in made or is_older):
            break
        if not due:
            why = _reason(stage, before, progress)
        if why:
            due.append(stage)
        elif stage.gate is not None and not progress.verdicts[stage.gate.name]:
            return None
        else:
            before = made[asset]
    if not due:
        return None
    first = due[0]
    return NextRun(
        data_version=progress.data_version,
        phase=first.phase,
        assets=tuple(stage.asset for stage in due if stage.phase == first.phase),
        cause=f"{progress.data_version}/{first.asset}/{before}",
        why=why,
    )


def compare_again(
    progress: Progress,
    compared_with: Collection[str | None],
    live_digest: str | None,
    automatic: bool,
) -> NextRun | None:
    """Return the new comparison of a version that waits for promotion; None if live is the same.

    `compared_with` are the live digests of its stored verdicts.
    """
    lapsed = next((digest for digest in compared_with if digest != live_digest), live_digest)
    if lapsed == live_digest:
        return None
    now = short(live_digest)
    return NextRun(
        data_version=progress.data_version,
        phase=COMPARISON[0].phase,
        assets=(*(stage.asset for stage in COMPARISON), *([PROMOTION] if automatic else [])),
        cause=f"{progress.data_version}/compare-{now}/{progress.made['staged_deployment']}",
        why=f"live is now {now}, it was compared with {short(lapsed)}",
    )


def waiting_for_promotion(versions: Iterable[Progress], live: str | None) -> Sequence[Progress]:
    """Return the versions past every gate, never live and newer than `live`, newest first.

    Only the first has to be compared again when live changes: it goes live before the others,
    or a gate stops it and the next one is first.
    """
    waiting = [
        progress
        for progress in versions
        if (run := next_run(progress, live, automatic=True)) is not None
        and run.assets == (PROMOTION,)
    ]
    return sorted(waiting, key=lambda p: version_order(p.data_version), reverse=True)


def launches(wanted: Sequence[NextRun], serving: bool, most: int) -> Sequence[NextRun]:
    """Return the runs to launch now: at most `most`, and one at a time in the serving phase.

    `serving` says whether a run of the serving phase is under way. The newest data version is
    served first, so that live changes as seldom as possible; versions train in their own order.
    """
    order = sorted(wanted, key=lambda run: version_order(run.data_version))
    serve = [run for run in order if run.phase == "serve"][-1:] if not serving else []
    return [*serve, *(run for run in order if run.phase == "train")][:most]


def needs_manual_relaunch(attempts: Attempts | None) -> bool:
    """Return whether only a person launches a run for this cause again."""
    if attempts is None or attempts.waits_for_dagster:
        return False
    return attempts.last_was_cancelled or attempts.launched >= MAX_ATTEMPTS


def may_launch(attempts: Attempts | None, stopped_by_a_person: bool) -> str | None:
    """Return why no run may be launched for a cause now; None if one may.

    A person stopped a data version if its newest run, whoever launched it, was cancelled.
    """
    if stopped_by_a_person:
        return "was cancelled"
    if attempts is None:
        return None
    if attempts.waits_for_dagster:
        return "is tried again by Dagster"
    if attempts.last_was_cancelled:
        return "was cancelled"
    if needs_manual_relaunch(attempts):
        return f"gave up after {attempts.launched} runs"
    if attempts.since_last < SECONDS_BETWEEN_ATTEMPTS:
        return "waits before the next attempt"
    return None


def _reason(stage: Stage, before: int, progress: Progress) -> str:
    event_id = progress.made.get(stage.asset)
    if event_id is None:
        return f"{stage.asset} is missing"
    if event_id < before:
        return f"{stage.asset} is older than what it is made from"
    if stage.gate is not None and stage.gate.name not in progress.verdicts:
        return f"{stage.gate.name} has not decided"
    return ""
