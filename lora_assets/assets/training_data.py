"""Stage 1: a data version's splits, validated and digested."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from lora_assets.assets.graph import GATE, stage_asset
from lora_assets.assets.pages import Table, show, table
from lora_assets.assets.verdicts import check_result, now, tag_stopped
from lora_assets.errors import LoraAssetsError
from lora_assets.gates.data import DataThresholds, Splits
from lora_assets.gates.data import data_is_sound as decide
from lora_assets.kubernetes.step_pods import step_pod
from lora_assets.lifecycle import PROMOTION
from lora_assets.records.dataset import TrainingData
from lora_assets.records.partition import data_version_of
from lora_assets.resources.data_bucket import DataBucket

SHOWN_CHARACTERS = 300
"""Of a row's context, on the page."""


@stage_asset("data", {"s3"}, "download-data")
def training_data(context: dg.AssetExecutionContext, data_bucket: DataBucket) -> TrainingData:
    """The validated, digested splits of one immutable data version."""
    data, rows = data_bucket.read(data_version_of(context.partition_key), keep=())
    counts = ", ".join(f"{name} {split.rows}" for name, split in data.splits.items())
    context.log.info(f"read {counts} rows, digest {data.digest[:12]}")
    splits = ({"split": name} | split.model_dump() for name, split in data.splits.items())
    source = dg.MetadataValue.url(data.source)
    shown = {"digest": data.digest, "source": source, "splits": table(splits)}
    against_live = _against_live(context, data, rows, data_bucket)
    show(context, (f"rows: {counts}",), {**shown, **against_live, "first rows": _readable(rows)})
    return data


def _readable(rows: Splits) -> Table:
    """Return the first rows of train as a reader sees them."""
    return table(
        {
            "question": row.question,
            "reference": row.reference_answer,
            "context": row.context[:SHOWN_CHARACTERS],
            "question type": row.metadata.question_type,
        }
        for row in rows.first
    )


def _against_live(
    context: dg.AssetExecutionContext, data: TrainingData, rows: Splits, data_bucket: DataBucket
) -> Mapping[str, Any]:
    """Return what is new against the data version that its model promoted last; {} for the same."""
    key = dg.AssetKey(PROMOTION)
    promoted = context.instance.get_materialized_partitions(key)
    # Two models have the same data versions: a partition of another model ends in its name.
    model = context.partition_key.removeprefix(data.data_version)
    own = [each for each in promoted if each == f"{data_version_of(each)}{model}"]
    if not own:
        return {}
    of_own = dg.AssetRecordsFilter(key, asset_partitions=own)
    (newest,) = context.instance.fetch_materializations(of_own, limit=1).records
    if (live := data_version_of(str(newest.partition_key))) == data.data_version:
        return {}
    name = f"against live's data version {live}"
    try:
        _, before = data_bucket.read(live, keep=())
    except LoraAssetsError as error:
        # It is for the page alone: the data version itself is in order.
        return {name: f"not known: {error}"}
    changes = rows.changes(before).items()
    return {
        name: table({"split": split, "new": new, "gone": gone} for split, (new, gone) in changes)
    }


class DataConfig(DataThresholds, dg.Config):
    """The data gate's thresholds, as parameters of the run."""


@dg.asset_check(**GATE, asset=training_data, op_tags=step_pod("download-data"))
def data_is_sound(
    config: DataConfig, training_data: TrainingData, data_bucket: DataBucket
) -> dg.AssetCheckResult:
    """Answerable rows and negatives in every split, and no row in two of them."""
    splits = data_bucket.read_unchanged(
        training_data.data_version, training_data.digest, training_data.source, keep=()
    )
    verdict = decide(training_data, splits, config, now())
    tag_stopped(verdict)
    source = dg.MetadataValue.url(training_data.source)
    # The registry has those on adapters; here it is for who follows the run.
    whole = dg.MetadataValue.json(verdict.model_dump(mode="json"))
    return check_result(verdict, {"data": source, "verdict": whole})
