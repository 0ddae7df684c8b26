"""What the registry knows of a model version."""

import re
from typing import Literal

from lora_assets.records import RECORD_FORMAT, AdapterRecord, Record, short
from lora_assets.records.dataset import older_by_name

_GateAlias = Literal["eval-passed", "eval-failed", "perf-passed", "perf-failed"]
Alias = Literal["candidate", "staged", _GateAlias, "live", "previous"]


class ModelVersion(AdapterRecord):
    """An adapter that passed the quality gate: what the `gate_result` asset stands for."""

    model: str
    version: int
    run_id: str
    data_arrived: str = ""

    @property
    def serving_name(self) -> str:
        """The name that belongs to these bytes alone: loaded, evaluated, load-tested as this."""
        return f"{self.model}-v{self.version}-{short(self.digest)}"

    def is_older_than(self, other: "ModelVersion") -> bool:
        """Return whether its data are the older ones.

        Where their names don't say, those are older that came to the bucket first; where that is
        not known or the same, those whose adapter was registered first.
        """
        by_name = older_by_name(self.data_version, other.data_version)
        if by_name is not None:
            return by_name
        arrived, before = self.data_arrived, other.data_arrived
        if arrived and before and arrived != before:
            return arrived < before
        return self.version < other.version


def model_of(name: str) -> str | None:
    """Return the model that a serving name is of; None for a name that is no serving name."""
    named = re.fullmatch(r"(.+)-v\d+-[0-9a-f]{12}", name)
    return named[1] if named else None


Action = Literal["promotion", "rollback", "return", "nothing changed"]
"""What is done with the live traffic: a `return` gives it to a version that was rolled back, which
only a person does, by its number."""


class Promotion(Record):
    """What a promotion or a rollback set out to do, kept from before its first step.

    `version` takes the live slot from `replaced`, which becomes `previous`; `run_id` is the
    Dagster run that began it. `token` tells it from all others: whoever wrote its own last goes
    on, and every other one stops before its next step. Releases before the history know neither
    `record_format` nor what stands after `done`.
    """

    record_format: int = RECORD_FORMAT
    source_alias: str
    version: ModelVersion
    replaced: ModelVersion | None
    run_id: str
    done: bool = False
    action: Action = "promotion"
    number: int = 0
    token: str = ""
    by: str = ""
    at: str = ""
    why: str = ""
    evidence: tuple[str, ...] = ()
