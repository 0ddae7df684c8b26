"""What all assets and all checks of the graph share."""

from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg

from lora_assets.assets.partitions import data_versions
from lora_assets.kubernetes.step_pods import step_pod

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
