"""Which model a partition is of."""

import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.records.partition import data_version_of, model_of, other_models, partition_of

OWN = "mistral-7b-lora"


@pytest.mark.parametrize(
    ("data_version", "model", "partition"),
    [("1", OWN, "1"), ("2026-01", "model-b", "2026-01@model-b")],
)
def test_another_model_than_the_deployments_own_is_in_the_partitions_name(
    data_version: str, model: str, partition: str
) -> None:
    assert partition_of(data_version, model, OWN) == partition
    assert (data_version_of(partition), model_of(partition, OWN)) == (data_version, model)


@pytest.mark.parametrize("model", ["", "a b", "a/b", "a@b", "a...b", ".."])
def test_a_model_that_can_name_no_partition_is_refused_on_both_ways(model: str) -> None:
    with pytest.raises(LoraAssetsError, match="MODEL_NAME is not possible"):
        partition_of("1", model, OWN)
    with pytest.raises(LoraAssetsError, match="MODEL_NAME is not possible"):
        model_of(f"1@{model}", OWN)


def test_the_own_model_has_no_second_partition() -> None:
    with pytest.raises(LoraAssetsError, match=r"Use partition 1\."):
        model_of(f"1@{OWN}", OWN)
    assert other_models(["1", f"1@{OWN}", "1@b", "2@b", "2@a", "1@a/b"], OWN) == ["a", "b"]
