"""Where the steps of a run are executed, and what this deployment changes in their pods."""

from collections.abc import Collection, Mapping
from typing import Any

import dagster as dg
from dagster._utils.merger import deep_merge_dicts

from lora_assets.errors import LoraAssetsError
from lora_assets.settings import Executor

PER_STEP = "per_step_k8s_config"
"""The executor's own field: by step, what comes on top of the step's op tags."""


def make_executor(
    name: Executor, step_pods: Mapping[str, Any], steps: Collection[str]
) -> dg.ExecutorDefinition:
    """The executor of that name; for `k8s_job`, with `step_pods` laid over the steps' tags.

    Raises LoraAssetsError for `step_pods` that are of none of `steps`, or no Kubernetes
    configuration.
    """
    if name == "in_process":
        return dg.in_process_executor
    if name == "multiprocess":
        return dg.multiprocess_executor
    # The Kubernetes client takes seconds to load, which only a cluster has to pay.
    from lora_assets.kubernetes.stopped_runs import make_stoppable

    _check(step_pods, steps)

    def with_step_pods(run: Mapping[str, Any]) -> Mapping[str, Any]:
        """A run's own configuration has the last word."""
        return {**run, PER_STEP: deep_merge_dicts(step_pods, run[PER_STEP])}

    # The fields are the executor's own, and are checked by it: to check them here as well would
    # convert their enums twice.
    schema = dg.Permissive({PER_STEP: dg.Field(dict, default_value={})})  # type: ignore[no-untyped-call]
    executor: dg.ExecutorDefinition = make_stoppable(name).configured(
        with_step_pods, name=name, config_schema=schema
    )
    return executor


def _check(step_pods: Mapping[str, Any], steps: Collection[str]) -> None:
    from dagster._config import validate_config  # The check that the executor itself makes.
    from dagster_k8s.job import USER_DEFINED_K8S_JOB_CONFIG_SCHEMA, UserDefinedDagsterK8sConfig

    for step, config in step_pods.items():
        if step not in steps:
            raise LoraAssetsError(
                f"LORA_ASSETS_STEP_PODS has {step!r}, which is no step",
                f"Steps are {', '.join(steps)}.",
            )
        found = validate_config(USER_DEFINED_K8S_JOB_CONFIG_SCHEMA, config)
        if found.errors:
            raise _wrong(step, found.errors[0].message)
        try:
            UserDefinedDagsterK8sConfig.from_dict(config)  # type: ignore[no-untyped-call]
        except Exception as error:  # noqa: BLE001 (dagster-k8s raises Exception itself)
            raise _wrong(step, str(error)) from None


def _wrong(step: str, cause: str) -> LoraAssetsError:
    return LoraAssetsError(
        f"LORA_ASSETS_STEP_PODS of {step}: {cause}",
        "Name fields of Kubernetes' Container, PodSpec or JobSpec.",
    )
