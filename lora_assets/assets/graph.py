"""What all assets and all checks of the graph share: partitions, pools, owners."""

from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from lora_assets.kubernetes.step_pods import step_pod
from lora_assets.records.progress import PARTITIONS

data_versions = dg.DynamicPartitionsDefinition(name=PARTITIONS)

# Pools, each of one slot (see dagster.yaml).
TRAINING = "training"
"""One training run per GPU."""

SERVING = "serving"
"""Aliases are last-writer-wins, the fleet has one candidate slot, and a load test needs the fleet
for itself: whatever touches one of them waits for the other."""

ROLLBACK = "rollback"
"""A rollback waits for other rollbacks alone: neither for an evaluation of hours nor for a
promotion, which stops before its next step when it sees the rollback."""

POOLS = (TRAINING, SERVING, ROLLBACK)

OWNERS = ["team:ml-platform"]
"""Who answers for the graph, as Dagster shows it on every asset."""

GATE: Mapping[str, Any] = {"partitions_def": data_versions, "blocking": True}
"""A check stops what comes after it, in its own partition."""


def stage_asset(
    group: str, kinds: set[str], step: str, *, code_version: str = "1", **options: Any
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """Return the decorator of a stage's asset; `options` are those of `dg.asset`.

    `step` is the specification's step whose needs of Kubernetes it has.
    """
    decorate: Callable[[Callable[..., Any]], dg.AssetsDefinition] = dg.asset(
        partitions_def=data_versions,
        owners=OWNERS,
        group_name=group,
        kinds=kinds,
        op_tags=step_pod(step),
        code_version=code_version,
        **options,
    )
    return decorate
