"""Eval splits of other data versions: what live knew is not lost."""

from collections.abc import Mapping, Sequence

from lora_assets.assets.comparison import Comparison
from lora_assets.gates.evaluation import DecisionRule, what_it_shows
from lora_assets.judging.evaluation import Evaluated
from lora_assets.judging.slices import ALL, compare_slices
from lora_assets.parameters import OF_LIVE
from lora_assets.records.dataset import Row, SplitName
from lora_assets.records.grades import OtherSplit
from lora_assets.resources.data_bucket import DataBucket

_EVAL: Sequence[SplitName] = ("eval",)


def other_splits(
    names: Sequence[str], comparison: Comparison, rule: DecisionRule, data_bucket: DataBucket
) -> tuple[Mapping[str, Sequence[Row]], tuple[str, ...]]:
    """Return the eval splits of these data versions, and what live's is missed for.

    There are none without live. Raise LoraAssetsError for a named one that is not in the bucket,
    and for one that is too small for the rule `paired`.
    """
    if comparison.live is None:
        return {}, ()
    of_live = comparison.live.data_version
    versions = dict.fromkeys(of_live if name == OF_LIVE else name for name in names)
    lacking: tuple[str, ...] = ()
    if OF_LIVE in names and of_live not in data_bucket.versions():
        del versions[of_live]
        lacking = (
            f"data version {of_live} of live is not in the bucket, so what live knew of it "
            "can't be tested; --also-evaluate none goes without",
        )
    splits: dict[str, Sequence[Row]] = {}
    for version in versions:
        if version == comparison.data.data_version:
            continue
        rows = data_bucket.read(version, _EVAL)[1]["eval"]
        if list(rows) != list(comparison.rows):
            splits[version] = rows
            if rule.decision_rule == "paired":
                negatives = sum(row.is_negative for row in rows)
                what_it_shows(len(rows), negatives, rule, f" of data version {version}")
    return splits, lacking


def compared(version: str, rows: Sequence[Row], found: Evaluated) -> OtherSplit:
    """Return what both sides did on another data version."""
    (every,) = compare_slices(rows, found.answers, found.grades, {ALL: range(len(rows))})
    name = f"data version {version}"
    return OtherSplit(every=every.model_copy(update={"name": name}), looks=found.looks)
