"""A partition's key: a data version, and the model where it is not the deployment's own.

Two models on one Dagster have the same data versions. The deployment's own model has the plain
ones as partitions, another one `1@another-model`: records, history and runs go by the partition.
"""

from collections.abc import Iterable, Sequence

from lora_assets.errors import LoraAssetsError
from lora_assets.records.dataset import is_version_name

_AT = "@"


def partition_of(data_version: str, model: str, own: str) -> str:
    """Return the partition of a model's data version; `own` is the deployment's own model.

    Raise LoraAssetsError for a model that can't be another one's neighbour by its name.
    """
    if model == own:
        return data_version
    if not is_version_name(model):
        raise LoraAssetsError(
            f"MODEL_NAME is not possible ({model!r} names partitions and slots)",
            "Use letters, digits, '.' (not three), '_' and '-'; begin with a letter or digit.",
        )
    return f"{data_version}{_AT}{model}"


def data_version_of(partition: str) -> str:
    """Return the data version of a partition, without its model."""
    return partition.partition(_AT)[0]


def other_models(partitions: Iterable[str], own: str) -> Sequence[str]:
    """Return the models beside the deployment's own that have partitions."""
    named = {partition.partition(_AT)[2] for partition in partitions}
    return sorted(model for model in named - {own} if is_version_name(model))


def model_of(partition: str, own: str) -> str:
    """Return the model of a partition; raise LoraAssetsError for one that stands for another."""
    data_version, at, model = partition.partition(_AT)
    if at and partition_of(data_version, model, own) != partition:
        raise LoraAssetsError(
            f"{model} is the deployment's own model, which partition {partition} can't name",
            f"Use partition {data_version}.",
        )
    return model if at else own
