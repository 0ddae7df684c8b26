"""Data gate: is a data version fit to train on and to be judged by?"""

import re
import unicodedata
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from hashlib import blake2b

from pydantic import Field

from lora_assets.records import Record
from lora_assets.records.dataset import SPLITS, Row, SplitName, SplitSummary, TrainingData
from lora_assets.records.split_file import Fault, parse_split, summary
from lora_assets.records.verdict import Check, Verdict


class DataThresholds(Record):
    """What a data version may have too much or too little of."""

    max_leak: int = Field(0, ge=0, description="Most rows that may stand in two splits")
    allow_no_negatives: bool = Field(
        False, description="Take data without negatives: refusals are not judged"
    )


_RAISED = ("<super>", "<sub>", "<fraction>")
SHOWN_ROWS = 3
"""Rows of train that are shown to a person."""


class Splits(dict[SplitName, list[Row]]):
    """The rows of those splits that are kept; of every split, what the gate decides on.

    A row leaves its line and two digests of what a reader sees of it, 24 bytes, so that a split
    is judged in little memory. `first` has the first SHOWN_ROWS of train, kept or not.
    """

    def __init__(self, kept: Collection[SplitName] = SPLITS) -> None:
        super().__init__({name: [] for name in kept})
        self.first: list[Row] = []
        self._seen = {name: array("Q") for name in SPLITS}
        self._negatives = dict.fromkeys(SPLITS, 0)

    def add(self, split: SplitName, line: int, row: Row) -> None:
        """Take a row, in the order of a split's lines; the splits may come in any order."""
        if split in self:
            self[split].append(row)
        if split == "train" and len(self.first) < SHOWN_ROWS:
            self.first.append(row)
        context, question = _seen(row.context), _seen(row.question)
        pair = f"{len(context)} {context}{question}"
        self._seen[split].extend((line, _digest(_seen(row.prompt_inference)), _digest(pair)))
        self._negatives[split] += row.is_negative

    def summary(self, split: SplitName) -> SplitSummary:
        """Return how many rows a split has."""
        return SplitSummary(rows=len(self._seen[split]) // 3, negatives=self._negatives[split])

    def changes(self, before: "Splits") -> Mapping[SplitName, tuple[int, int]]:
        """Return of each split how many prompts `before` lacks, and how many it alone has."""
        prompts = {
            name: (set(self._seen[name][1::3]), set(before._seen[name][1::3])) for name in SPLITS
        }
        return {name: (len(now - old), len(old - now)) for name, (now, old) in prompts.items()}

    def repeats(self) -> tuple[Sequence[Fault], Sequence[Fault]]:
        """Return the rows that an earlier split has too, and those that their own split has twice.

        Rows are the same when a reader or a model could not tell them apart: white space,
        invisible characters, upper case and Unicode's forms don't count, nor does the answer.
        """
        import numpy as np

        pairs = [np.array(seen).reshape(-1, 3)[:, 1:].ravel() for seen in self._seen.values()]
        digests = np.sort(np.concatenate(pairs))
        # A place for each digest would take more memory than all else.
        common = set(digests[1:][digests[1:] == digests[:-1]].tolist())
        first: dict[int, tuple[SplitName, int]] = {}
        leaks: list[Fault] = []
        repeated: list[Fault] = []
        for name, seen in self._seen.items():
            for line, *keys in zip(seen[::3], seen[1::3], seen[2::3], strict=True):
                before = next((first[key] for key in keys if key in first), None)
                if before is not None:
                    split, its_line = before
                    cause = (
                        f"the same question on the same context as {split}.jsonl line {its_line}"
                    )
                    fault = Fault(split=name, line=line, field="prompt_inference", cause=cause)
                    (repeated if split == name else leaks).append(fault)
                place = (name, line)
                for key in common.intersection(keys):
                    first.setdefault(key, place)
        return leaks, repeated


def data_is_sound(
    data: TrainingData, splits: Splits, thresholds: DataThresholds, decided_at: str
) -> Verdict:
    """Require answerable rows and negatives in every split, and no row in two splits.

    "duplicate rows" are those in two splits; one that a split has twice is only noted.
    """
    leaks, repeated = splits.repeats()
    unjudged = thresholds.allow_no_negatives and not splits.summary("eval").negatives
    notes = ["no negatives in eval: refusals are not judged"] if unjudged else []
    notes += [summary(faults) for faults in (leaks, repeated) if faults]
    checks = [check for name in SPLITS for check in _counts(name, splits, thresholds)]
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
    splits = Splits(())
    wrong: dict[SplitName, Sequence[Fault]] = {}
    for name in (name for name in SPLITS if name in contents):
        rows, wrong[name] = parse_split(name, contents[name])
        for line, row in rows.items():
            splits.add(name, line, row)
    leaks, repeated = splits.repeats()
    leaked = not _at_most_leaked(leaks, thresholds).passed
    faults = [f"{name}.jsonl is missing" for name in SPLITS if name not in contents]
    for name, found in wrong.items():
        counts = () if found else _counts(name, splits, thresholds)
        faults += [*map(str, found), *(str(check) for check in counts if not check.passed)]
    faults += map(str, leaks if leaked else ())
    return faults, [str(fault) for fault in (*(() if leaked else leaks), *repeated)]


def _seen(text: str) -> str:
    """Return what a text shows, without what only its bytes tell apart; 10\u2076 is not 106."""
    if not text.isascii():
        raised = (unicodedata.decomposition(c).startswith(_RAISED) for c in text)
        text = "".join(
            f"\0{c}" if is_raised else c for c, is_raised in zip(text, raised, strict=True)
        )
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    visible = "".join(c for c in folded if unicodedata.category(c) != "Cf")
    return re.sub(r"\s+", " ", visible).strip()


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest())


def _counts(name: SplitName, splits: Splits, thresholds: DataThresholds) -> Iterator[Check]:
    rows, negatives = splits.summary(name).rows, splits.summary(name).negatives
    yield Check.at_least(f"rows in {name}", rows, 1)
    yield Check.at_least(f"answerable rows in {name}", rows - negatives, 1)
    if not thresholds.allow_no_negatives:
        yield Check.at_least(f"negatives in {name}", negatives, 1)


def _at_most_leaked(leaks: Sequence[Fault], thresholds: DataThresholds) -> Check:
    return Check.at_most("duplicate rows", len(leaks), thresholds.max_leak)
