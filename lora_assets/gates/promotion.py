"""Promotion: may this model version take the live traffic, on the evidence as it stands now?"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lora_assets.lifecycle import GATES, Gate
from lora_assets.records import short
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.verdict import GateName, Verdict


def required_gates(source_alias: str) -> tuple[Gate, ...]:
    """Return the gates whose verdicts a promotion from `source_alias` asks for.

    `previous` was live before, so that a rollback asks for none.
    """
    if source_alias == "previous":
        return ()
    return tuple(
        gate for gate in GATES.values() if gate.required and source_alias not in gate.skipped_from
    )


class Case(NamedTuple):
    """A candidate for the live traffic, what is live now, and the candidate's stored verdicts."""

    candidate: ModelVersion
    live: ModelVersion | None
    verdicts: Mapping[GateName, Verdict]
    source_alias: str
    allow_older: bool = False

    @property
    def against(self) -> tuple[str, ...]:
        """Return why the candidate may not become live; nothing when it may."""
        candidate, reasons = self.candidate, []
        for gate in (gate.name for gate in required_gates(self.source_alias)):
            verdict = self.verdicts.get(gate)
            if verdict is None:
                reasons.append(f"{gate} has no verdict")
            elif verdict.digest != candidate.digest:
                judged = short(verdict.digest)
                reasons.append(f"{gate} judged adapter {judged}, not {short(candidate.digest)}")
            elif not verdict.is_of_base(candidate.base):
                bases = f"{short(verdict.base)}, not {short(candidate.base)}"
                reasons.append(f"{gate} judged it on base model {bases}")
            elif not verdict.passed:
                reasons.append(f"{gate} failed: {'; '.join(verdict.failures)}")
        return (*reasons, *self.overtaken)

    @property
    def overtaken(self) -> tuple[str, ...]:
        """Return what stands against it only because another version went live meanwhile."""
        candidate, live = self.candidate, self.live
        live_digest = live.digest if live else None
        reasons = [
            f"{gate.name} compared with {short(verdict.compared_with)}, "
            f"but live is now {short(live_digest)}"
            for gate in required_gates(self.source_alias)
            if gate.compares_with_live
            and (verdict := self.verdicts.get(gate.name)) is not None
            and verdict.digest == candidate.digest
            and verdict.passed
            and verdict.compared_with != live_digest
        ]
        may_be_older = self.allow_older or self.source_alias == "previous"
        if live is not None and not may_be_older and candidate.is_older_than(live):
            reasons.append(
                f"data version {candidate.data_version} is older than live {live.data_version}"
            )
        return tuple(reasons)

    @property
    def evidence(self) -> tuple[str, ...]:
        """Return the verdicts that the promotion rests on, for the history."""
        gates = required_gates(self.source_alias)
        return tuple(
            f"{gate.name} of {verdict.decided_at}"
            + (f" (MLflow run {verdict.evidence_run_id})" if verdict.evidence_run_id else "")
            for gate in gates
            if (verdict := self.verdicts.get(gate.name)) is not None
        )


def outlook(live: ModelVersion | None, reasons: Sequence[str]) -> str:
    """Return what a promotion would do now, given the `reasons` against it."""
    if reasons:
        return f"It would be refused: {'; '.join(reasons)}"
    if live is None:
        return "It would become the first live version."
    return f"It would replace version {live.version} (data version {live.data_version})."
