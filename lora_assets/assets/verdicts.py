"""A verdict as Dagster shows it, and as a later step demands it."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from lora_assets.assets.pages import Rows, number, rounded, table
from lora_assets.errors import LoraAssetsError
from lora_assets.lifecycle import GATES, STAGES, next_step
from lora_assets.records import short
from lora_assets.records.markdown import as_it_is
from lora_assets.records.run_tags import STOPPED_BY
from lora_assets.records.units import unit_of
from lora_assets.records.verdict import GateName, Verdict
from lora_assets.resources.policy import PolicyFile

SHOWN_NUMBERS = 3
"""In a summary; the table has all of them."""


def now() -> str:
    """Return this moment, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def under(policy: PolicyFile, verdict: Verdict) -> Verdict:
    """Return the verdict with the policy's digest and with the run that the gate decides in."""
    update = {"policy": policy.read().digest, "dagster_run": tag_stopped(verdict)}
    return verdict.model_copy(update=update)


def tag_stopped(verdict: Verdict) -> str:
    """Return the id of the run that a gate decides in; tag the run if the gate says no."""
    context = dg.AssetCheckExecutionContext.get()
    if not verdict.passed:
        # Before the run ends: one that has ended takes no more tags.
        context.instance.add_run_tags(context.run.run_id, {STOPPED_BY: verdict.gate})
    return context.run.run_id


def check_result(
    verdict: Verdict, evidence: Mapping[str, dg.MetadataValue | str] | None = None
) -> dg.AssetCheckResult:
    """Return the verdict as an asset check: its outcome, a table row per number, and `evidence`.

    A margin is how far a number lies inside its limit; negative, how far outside. Both are
    numbers of their own, too: Dagster plots those over the data versions.
    """
    metadata: dict[str, dg.MetadataValue | str] = {
        # Dagster sorts what a check says by its name, and capitals come first.
        "Summary": dg.MetadataValue.md(_summary(verdict)),
        "checks": table(check_rows(verdict)),
        **_plotted(verdict),
        "thresholds": dg.MetadataValue.json(dict(verdict.thresholds)),
        "digest": verdict.digest,
        "policy": short(verdict.policy) if verdict.policy else "the specification's",
    }
    if GATES[verdict.gate].compares_with_live:
        metadata["compared with"] = f"live: {short(verdict.compared_with)}"
    metadata |= evidence or {}
    if verdict.faults:
        metadata["faults"] = "; ".join(verdict.faults)
    if verdict.paired:
        metadata |= {"rule": verdict.rule, "paired evidence": table(evidence_rows(verdict))}
    if verdict.judge:
        metadata["judge"] = verdict.judge
    said = (*(verdict.failures or map(str, verdict.checks)), *verdict.notes)
    return dg.AssetCheckResult(
        passed=verdict.passed,
        description="; ".join(("inconclusive", *said) if verdict.undecided else said),
        metadata=metadata,
    )


def check_rows(verdict: Verdict) -> Rows:
    """Return a row for each number that a gate held against a limit."""
    return [
        {
            "check": check.name,
            "measured": "missing" if check.measured is None else number(check.measured),
            "must be": f"{check.comparison} {number(check.limit)}",
            "margin": "missing" if check.margin is None else number(check.margin, "+"),
            "unit": unit_of(check.name),
            "verdict": "passed" if check.passed else "undecided" if check.undecided else "FAILED",
        }
        for check in verdict.checks
    ]


def evidence_rows(verdict: Verdict) -> Rows:
    """Return a row for each measure of candidate and live on the same rows, in shares of them."""
    return [
        {
            "measure": each.measure,
            "candidate - live": f"{each.estimate:+.4f}",
            "interval": f"{each.lower:+.4f} to {each.upper:+.4f}",
            "margin": f"{each.margin:.4f}",
            "unit": unit_of(each.measure),
            "rows": each.rows,
            "differ": each.only_candidate + each.only_live,
            "state": each.state,
        }
        for each in verdict.paired
    ]


def _summary(verdict: Verdict) -> str:
    """Return the outcome, the numbers that decided it, and what to do next."""
    outcome = "FAILED" if verdict.outcome == "failed" else verdict.outcome
    decisive = (*verdict.failures, *(str(check) for check in verdict.checks if check.passed))
    (asset,) = (s.asset for s in STAGES.values() if s.gate and s.gate.name == verdict.gate)
    return (
        f"**{verdict.gate} {outcome} for data version {verdict.data_version}** "
        f"({short(verdict.digest)}): "
        f"{as_it_is('; '.join(decisive[:SHOWN_NUMBERS]))}. Next: {next_step(asset, verdict.passed)}"
    )


def _plotted(verdict: Verdict) -> Mapping[str, dg.MetadataValue[Any]]:
    numbers = {check.name: check.measured for check in verdict.checks}
    numbers |= {f"{check.name} margin": check.margin for check in verdict.checks}
    return {
        name: dg.MetadataValue.float(rounded(value))
        for name, value in numbers.items()
        if value is not None and math.isfinite(value)
    }


def require_passed(
    verdict: Verdict | None, gate: GateName, digest: str, data_version: str
) -> Verdict:
    """Return the verdict, refused unless it is a passed one of `gate` on the bytes of `digest`."""
    if verdict is None or verdict.digest != digest:
        raise LoraAssetsError(
            f"{gate} has no verdict on {digest[:12]} of data version {data_version}",
            f"Run {gate} for data version {data_version} first.",
        )
    if not verdict.passed:
        raise LoraAssetsError(
            f"{digest[:12]} of data version {data_version} failed {gate} "
            f"({'; '.join((*verdict.failures, *verdict.notes))})",
            GATES[gate].remedy,
        )
    return verdict
