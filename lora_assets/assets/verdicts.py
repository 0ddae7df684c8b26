"""A verdict as Dagster shows it, and as a later step demands it."""

from collections.abc import Mapping
from datetime import UTC, datetime

import dagster as dg

from lora_assets.assets.pages import table
from lora_assets.errors import LoraAssetsError
from lora_assets.lifecycle import GATES
from lora_assets.records.verdict import GateName, PairedEvidence, Verdict


def now() -> str:
    """Return this moment, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def check_result(
    verdict: Verdict, evidence: Mapping[str, dg.MetadataValue | str] | None = None
) -> dg.AssetCheckResult:
    """Return the verdict as an asset check: a table row per number, and `evidence`.

    A margin is how far a number lies inside its limit; negative, how far outside.
    """
    rows = (
        {
            "check": check.name,
            "measured": "missing" if check.measured is None else f"{check.measured:.4f}",
            "must be": f"{check.comparison} {check.limit:.4f}",
            "margin": "missing" if check.margin is None else f"{check.margin:+.4f}",
            "verdict": "passed" if check.passed else "undecided" if check.undecided else "FAILED",
        }
        for check in verdict.checks
    )
    metadata: dict[str, dg.MetadataValue | str] = {
        "checks": table(rows),
        "thresholds": dg.MetadataValue.json(dict(verdict.thresholds)),
        "digest": verdict.digest,
    }
    if GATES[verdict.gate].compares_with_live:
        metadata["compared with"] = verdict.compared_with or "nothing live"
    metadata |= evidence or {}
    if verdict.faults:
        metadata["faults"] = "; ".join(verdict.faults)
    if verdict.paired:
        metadata |= {"rule": verdict.rule, "paired evidence": table(map(_evidence, verdict.paired))}
    if verdict.judge:
        metadata["judge"] = verdict.judge
    said = (*(verdict.failures or map(str, verdict.checks)), *verdict.notes)
    return dg.AssetCheckResult(
        passed=verdict.passed,
        description="; ".join(("inconclusive", *said) if verdict.undecided else said),
        metadata=metadata,
    )


def _evidence(evidence: PairedEvidence) -> Mapping[str, str | int]:
    return {
        "measure": evidence.measure,
        "candidate - live": f"{evidence.estimate:+.4f}",
        "interval": f"{evidence.lower:+.4f} to {evidence.upper:+.4f}",
        "margin": f"{evidence.margin:.4f}",
        "rows": evidence.rows,
        "differ": evidence.only_candidate + evidence.only_live,
        "state": evidence.state,
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
