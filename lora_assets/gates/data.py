"""Data gate: is a data version fit to train on and to be judged by?"""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

from pydantic import Field

from lora_assets.records import Record
from lora_assets.records.dataset import SPLITS, Row, SplitName, TrainingData
from lora_assets.records.split_file import Fault, parse_split, summary
from lora_assets.records.verdict import Check, Verdict

Splits = Mapping[SplitName, Sequence[Row]]
Numbered = Mapping[SplitName, Mapping[int, Row]]
"""The rows of each split by their lines."""


class DataThresholds(Record):
    """What a data version may have too much or too little of."""

    max_leak: int = Field(0, ge=0, description="Most rows that may stand in two splits")
    allow_no_negatives: bool = Field(
        False, description="Take data without negatives: refusals are not judged"
    )


def data_is_sound(
    data: TrainingData, splits: Splits, thresholds: DataThresholds, decided_at: str
) -> Verdict:
    """Require answerable rows and negatives in every split, and no row in two splits.

    "duplicate rows" are those in two splits; one that a split has twice is only noted.
    """
    leaks, repeated = repeats({name: dict(enumerate(splits[name], 1)) for name in SPLITS})
    unjudged = thresholds.allow_no_negatives and not any(row.is_negative for row in splits["eval"])
    notes = ["no negatives in eval: refusals are not judged"] if unjudged else []
    notes += [summary(faults) for faults in (leaks, repeated) if faults]
    checks = [check for name in SPLITS for check in _counts(name, splits[name], thresholds)]
    return Verdict(
        gate="data_is_sound",
        digest=data.digest,
        data_version=data.data_version,
        data_digest=data.digest,
        thresholds={name: getattr(thresholds, name) for name in DataThresholds.model_fields},
        checks=(*checks, _at_most_leaked(leaks, thresholds)),
        notes=tuple(notes),
        decided_at=decided_at,
    )


def examine(
    contents: Mapping[SplitName, bytes], thresholds: DataThresholds
) -> tuple[Sequence[str], Sequence[str]]:
    """Return every fault of a data version, a line each, and what is only noted.

    A file with faults is not counted: rows that can't be read are not missing.
    """
    parsed = {name: parse_split(name, contents[name]) for name in SPLITS if name in contents}
    leaks, repeated = repeats({name: rows for name, (rows, _) in parsed.items()})
    leaked = not _at_most_leaked(leaks, thresholds).passed
    faults = [f"{name}.jsonl is missing" for name in SPLITS if name not in contents]
    for name, (rows, wrong) in parsed.items():
        counts = () if wrong else _counts(name, list(rows.values()), thresholds)
        faults += [*map(str, wrong), *(str(check) for check in counts if not check.passed)]
    faults += map(str, leaks if leaked else ())
    return faults, [str(fault) for fault in (*(() if leaked else leaks), *repeated)]


def repeats(splits: Numbered) -> tuple[Sequence[Fault], Sequence[Fault]]:
    """Return the rows that an earlier split has too, and those that their own split has twice.

    Rows are the same when a reader or a model could not tell them apart: white space, invisible
    characters, upper case and Unicode's forms don't count, nor does the answer.
    """
    first: dict[tuple[str, ...], tuple[SplitName, int]] = {}
    leaks: list[Fault] = []
    repeated: list[Fault] = []
    for name, rows in splits.items():
        for line, row in rows.items():
            keys = ((_seen(row.prompt_inference),), (_seen(row.context), _seen(row.question)))
            before = next((first[key] for key in keys if key in first), None)
            if before is not None:
                split, its_line = before
                cause = f"the same question on the same context as {split}.jsonl line {its_line}"
                fault = Fault(split=name, line=line, field="prompt_inference", cause=cause)
                (repeated if split == name else leaks).append(fault)
            for key in keys:
                first.setdefault(key, (name, line))
    return leaks, repeated


def _seen(text: str) -> str:
    """Return what a text shows, without what only its bytes tell apart."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    visible = "".join(c for c in folded if unicodedata.category(c) != "Cf")
    return re.sub(r"\s+", " ", visible).strip()


def _counts(name: SplitName, rows: Sequence[Row], thresholds: DataThresholds) -> Iterator[Check]:
    negatives = sum(row.is_negative for row in rows)
    yield Check.at_least(f"rows in {name}", len(rows), 1)
    yield Check.at_least(f"answerable rows in {name}", len(rows) - negatives, 1)
    if not thresholds.allow_no_negatives:
        yield Check.at_least(f"negatives in {name}", negatives, 1)


def _at_most_leaked(leaks: Sequence[Fault], thresholds: DataThresholds) -> Check:
    return Check.at_most("duplicate rows", len(leaks), thresholds.max_leak)
