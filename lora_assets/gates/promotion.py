"""Promotion: may this model version take the live traffic, on the evidence as it stands now?"""

import re
from collections.abc import Mapping, Sequence

from lora_assets.lifecycle import GateName
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.verdict import Verdict

ALL_GATES: tuple[GateName, ...] = ("quality_gate", "smoke_test", "eval_gate", "perf_gate")

REQUIRED_GATES: Mapping[str, tuple[GateName, ...]] = {
    "eval-passed": ("quality_gate", "smoke_test", "eval_gate"),
    "previous": (),
}
"""What a source alias asks for, where it is less than every gate: `eval-passed` skips the perf
gate (specification, "Promote after evaluation only"), `previous` was live before (rollback)."""

COMPARED_GATES: tuple[GateName, ...] = ("eval_gate", "perf_gate")
"""Gates that hold the candidate against live; their verdicts lapse when live changes."""


def version_order(data_version: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key that reads runs of digits as numbers: 2 before 10, 2026-9 before 2026-11."""
    parts = re.findall(r"\d+|\D+", data_version)
    return tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts)


def reasons_against(
    candidate: ModelVersion,
    live: ModelVersion | None,
    verdicts: Mapping[GateName, Verdict],
    source_alias: str,
    allow_older: bool,
) -> tuple[str, ...]:
    """Why `candidate` may not become live; empty when it may.

    `verdicts` are the ones stored for the candidate, `live` is what is live at this moment.
    """
    reasons: list[str] = []
    for gate in REQUIRED_GATES.get(source_alias, ALL_GATES):
        verdict = verdicts.get(gate)
        if verdict is None:
            reasons.append(f"{gate} has no verdict")
        elif verdict.digest != candidate.digest:
            reasons.append(
                f"{gate} judged adapter {verdict.digest[:12]}, not {candidate.digest[:12]}"
            )
        elif not verdict.passed:
            reasons.append(f"{gate} failed: {'; '.join(verdict.failures)}")
    return (*reasons, *overtaken(candidate, live, verdicts, source_alias, allow_older))


def overtaken(
    candidate: ModelVersion,
    live: ModelVersion | None,
    verdicts: Mapping[GateName, Verdict],
    source_alias: str,
    allow_older: bool,
) -> tuple[str, ...]:
    """What stands against `candidate` only because another version went live meanwhile."""
    live_digest = live.digest if live else None
    reasons = [
        f"{gate} compared with {_name(verdict.compared_with)}, but live is now {_name(live_digest)}"
        for gate in REQUIRED_GATES.get(source_alias, ALL_GATES)
        if gate in COMPARED_GATES
        and (verdict := verdicts.get(gate)) is not None
        and verdict.digest == candidate.digest
        and verdict.passed
        and verdict.compared_with != live_digest
    ]
    if (
        live is not None
        and source_alias != "previous"
        and not allow_older
        and version_order(candidate.data_version) < version_order(live.data_version)
    ):
        reasons.append(
            f"data version {candidate.data_version} is older than live {live.data_version}"
        )
    return tuple(reasons)


def outlook(live: ModelVersion | None, reasons: Sequence[str]) -> str:
    """What a promotion would do now, `reasons` being those against it."""
    if reasons:
        return f"It would be refused: {'; '.join(reasons)}"
    if live is None:
        return "It would become the first live version."
    return f"It would replace version {live.version} (data version {live.data_version})."


def _name(digest: str | None) -> str:
    return digest[:12] if digest else "nothing"
