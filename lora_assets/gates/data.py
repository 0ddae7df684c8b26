"""Data gate: is a data version fit to train on and to be judged by?"""

from collections import Counter
from collections.abc import Mapping, Sequence

from lora_assets.records.dataset import SPLITS, Row, SplitName, TrainingData
from lora_assets.records.verdict import Check, Verdict

Splits = Mapping[SplitName, Sequence[Row]]


def data_is_sound(data: TrainingData, splits: Splits, decided_at: str) -> Verdict:
    """Require rows and negatives in every split, and no duplicate within or across splits."""
    seen = Counter((row.context, row.question) for name in SPLITS for row in splits[name])
    negatives = {name: sum(row.is_negative for row in splits[name]) for name in SPLITS}
    return Verdict(
        gate="data_is_sound",
        digest=data.digest,
        data_version=data.data_version,
        data_digest=data.digest,
        checks=(
            *(Check.at_least(f"rows in {name}", len(splits[name]), 1) for name in SPLITS),
            *(Check.at_least(f"negatives in {name}", negatives[name], 1) for name in SPLITS),
            Check.at_most("duplicate rows", seen.total() - len(seen), 0),
        ),
        decided_at=decided_at,
    )
