"""What was live, one change after the other."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from uuid import uuid4

from lora_assets.records import RECORD_FORMAT, Record
from lora_assets.records.model_version import ModelVersion, Promotion

LIVE, ABORTED = "live", "aborted"
"""How a promotion or a rollback ended: its version got the live traffic, or did not."""


class Change(Record):
    """One entry of the history: written when a promotion or rollback ends, and never again.

    `outcome` is LIVE or ABORTED. `by` is who or what asked for it, `at` when, as ISO 8601 in UTC.
    `replaced` is the version that lost the live traffic. `evidence` names the verdicts that
    allowed it.
    """

    record_format: int = RECORD_FORMAT
    number: int
    token: str
    action: str
    outcome: str
    version: int
    digest: str
    data_version: str
    replaced: int | None = None
    replaced_digest: str | None = None
    source_alias: str = ""
    run_id: str = ""
    by: str = ""
    at: str = ""
    why: str = ""
    evidence: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """Return what was done, as a sentence's part."""
        before = "nothing" if self.replaced is None else f"version {self.replaced}"
        ended = "" if self.outcome == LIVE else f", {self.outcome}"
        return f"{self.action} from {before} to version {self.version}{ended}"

    @property
    def asked(self) -> str:
        """Return who asked for it, when and why."""
        why = f": {self.why}" if self.why else ""
        return f"by {self.by or 'an unknown user'}, {self.at or 'at an unknown time'}{why}"


class Standing(Record):
    """What is live and how that came about, read at one moment.

    `live` is what the history says; before its first entry what the alias says, but not where
    entries are signed. `unfinished` is the
    promotion or rollback that is under way or was cut short; `last` the one that was begun last.
    """

    aliases: Mapping[str, ModelVersion]
    live: ModelVersion | None
    last: Promotion | None
    history: tuple[Change, ...]

    @property
    def unfinished(self) -> Promotion | None:
        return self.last if self.last is not None and not self.last.done else None

    @property
    def is_reached(self) -> bool:
        """Return whether the alias `live` points at what the last one set out to make live."""
        return self.last is not None and self.aliases.get("live") == self.last.version

    @property
    def meant(self) -> Mapping[str, ModelVersion]:
        """Return the aliases as they should be."""
        others = {alias: each for alias, each in self.aliases.items() if alias != "live"}
        return others if self.live is None else {"live": self.live, **others}

    @property
    def alias_drift(self) -> str | None:
        """Return how the alias `live` differs from the history; None where it agrees."""
        alias = self.aliases.get("live")
        if alias == self.live:
            return None
        points = f"version {alias.version}" if alias else "nothing"
        live = f"version {self.live.version}" if self.live else "nothing"
        return f"alias live points at {points}, by the history {live} is live"


def next_number(history: Sequence[Change]) -> int:
    """Return the lowest number above those of all entries."""
    return 1 + max([0, *(each.number for each in history)])


def numbered(
    promotion: Promotion, history: Sequence[Change], before: Promotion | None
) -> Promotion:
    """Return it as it is kept: with its number, the time, and a token of its own."""
    number = max(next_number(history), 1 + (before.number if before else 0))
    at = datetime.now(UTC).isoformat(timespec="seconds")
    return promotion.model_copy(update={"number": number, "token": uuid4().hex[:8], "at": at})


def change(promotion: Promotion, outcome: str, why: str = "") -> Change:
    """Return the entry of a promotion or rollback that has ended."""
    version, replaced = promotion.version, promotion.replaced
    kept = {"number", "action", "source_alias", "run_id", "by", "at", "evidence"}
    return Change(
        **promotion.model_dump(include=kept),
        token=promotion.token or promotion.run_id[:8],
        outcome=outcome,
        version=version.version,
        digest=version.digest,
        data_version=version.data_version,
        replaced=replaced.version if replaced else None,
        replaced_digest=replaced.digest if replaced else None,
        why=why or promotion.why,
    )
