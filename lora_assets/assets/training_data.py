"""Stage 1: a data version's splits, validated and digested."""

import dagster as dg

from lora_assets.assets.graph import GATE, stage_asset
from lora_assets.assets.pages import show, table
from lora_assets.assets.verdicts import check_result, now, tag_stopped
from lora_assets.gates.data import DataThresholds
from lora_assets.gates.data import data_is_sound as decide
from lora_assets.kubernetes.step_pods import step_pod
from lora_assets.records.dataset import TrainingData
from lora_assets.records.partition import data_version_of
from lora_assets.resources.data_bucket import DataBucket


@stage_asset("data", {"s3"}, "download-data")
def training_data(context: dg.AssetExecutionContext, data_bucket: DataBucket) -> TrainingData:
    """The validated, digested splits of one immutable data version."""
    data, _ = data_bucket.read(data_version_of(context.partition_key), keep=())
    counts = ", ".join(f"{name} {split.rows}" for name, split in data.splits.items())
    context.log.info(f"read {counts} rows, digest {data.digest[:12]}")
    splits = ({"split": name} | split.model_dump() for name, split in data.splits.items())
    source = dg.MetadataValue.url(data.source)
    shown = {"digest": data.digest, "source": source, "splits": table(splits)}
    show(context, (f"rows: {counts}",), shown)
    return data


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
    return check_result(verdict)
