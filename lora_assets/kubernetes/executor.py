"""Where the steps of a run are executed, and what a deployment changes in their pods."""

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import dagster as dg

from lora_assets.errors import LoraAssetsError
from lora_assets.kubernetes import Executor
from lora_assets.kubernetes.light_steps import fit_into_run
from lora_assets.kubernetes.lost_pods import no_pods_to_lose

PER_STEP = "per_step_k8s_config"
"""The executor's own field: by step, what is laid over the step's op tags."""


def make_executor(
    name: Executor, step_pods: Mapping[str, Any], steps: Collection[str]
) -> dg.ExecutorDefinition:
    """Return the executor of that name; for `k8s_job`, with `step_pods` over the steps' tags.

    The configuration of a run is laid over both; it has sizes and nodes alone.
    Raise LoraAssetsError where `step_pods` names an unknown step, or a field that Kubernetes
    doesn't know.
    """
    if name == "in_process":
        return dg.in_process_executor
    if name == "multiprocess":
        return dg.multiprocess_executor
    # The Kubernetes client takes seconds to load, which only a cluster has to pay.
    from dagster_k8s import k8s_job_executor

    _validate(step_pods, steps)

    def create(context: dg.InitExecutorContext) -> dg.Executor:
        config = context.executor_config
        merged = _merge(step_pods, cast("Mapping[str, Any]", config[PER_STEP]))
        in_pods = context._replace(executor_config={**config, PER_STEP: merged})
        in_run = context._replace(executor_config={"retries": {"enabled": {}}})
        return _InPods(
            k8s_job_executor.executor_creation_fn(in_pods),  # type: ignore[misc]
            dg.in_process_executor.executor_creation_fn(in_run),  # type: ignore[misc]
            by_step=merged,
            every_step=cast("Mapping[str, Any]", config.get("step_k8s_config", {})),
        )

    return dg.ExecutorDefinition(
        name=name,
        config_schema=_of_a_run(k8s_job_executor.config_schema),
        requirements=k8s_job_executor.get_requirements,
        executor_creation_fn=create,
    )


def _of_a_run(full: Any) -> dict[str, Any]:
    """Return the part of k8s_job_executor's configuration that starts no other code.

    Who may launch a run would otherwise choose image, account, Secrets and volumes of its pods.
    """
    optional = partial(dg.Field, is_required=False)
    memory = optional({"resources": optional(dict)})
    nodes = optional({"node_selector": optional(dict), "tolerations": optional(list)})
    sizes = {"container_config": memory, "pod_spec_config": nodes}
    by_step = dg.Field({str: sizes}, default_value={})
    known = full.as_field().config_type.fields
    kept = {name: known[name] for name in ("retries", "max_concurrent")}
    return {**kept, "step_k8s_config": optional(sizes), PER_STEP: by_step}


@dataclass
class _InPods(dg.Executor):
    """Execute light steps in the run's pod, others in pods; delete those of a stopped run.

    Where a lost run worker is replaced (`run_monitoring.max_resume_run_attempts`), Dagster takes
    every end of a worker for such a loss and leaves the steps alone: a training that was stopped
    would keep its GPU to its end (dagster#33923).
    """

    in_pods: dg.Executor
    in_run: dg.Executor
    by_step: Mapping[str, Any]
    every_step: Mapping[str, Any]

    @property
    def retries(self) -> Any:
        return self.in_pods.retries

    @property
    def step_dependency_config(self) -> Any:
        return self.in_pods.step_dependency_config

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        instance, run = plan_context.instance, plan_context.dagster_run
        if self._fit_into(instance, run, execution_plan):
            with no_pods_to_lose():
                yield from self.in_run.execute(plan_context, execution_plan)
            return
        try:
            yield from self.in_pods.execute(plan_context, execution_plan)
        finally:
            _delete_steps_if_stopped(instance, run.run_id)

    def _fit_into(self, instance: dg.DagsterInstance, run: dg.DagsterRun, plan: Any) -> bool:
        from dagster_k8s import K8sRunLauncher
        from dagster_k8s.job import get_user_defined_k8s_config

        launcher = instance.run_launcher
        # A run that was launched otherwise has no pod; with a setting for every step, ask no more.
        if not isinstance(launcher, K8sRunLauncher) or self.every_step:
            return False
        steps = [
            _merge(
                _stated(get_user_defined_k8s_config(step.tags or {})),
                self.by_step.get(step.op_name, {}),
            )
            for step in map(plan.get_step_by_key, plan.step_keys_to_execute)
        ]
        run_pod = launcher.get_container_context_for_run(run).run_k8s_config
        return fit_into_run(steps, _stated(run_pod))


def _stated(config: Any) -> Mapping[str, Any]:
    """Return the sections of a UserDefinedDagsterK8sConfig that say something."""
    return {name: of for name, of in config.to_dict().items() if of and name != "merge_behavior"}


def _delete_steps_if_stopped(instance: dg.DagsterInstance, run_id: str) -> None:
    from dagster_k8s import K8sRunLauncher
    from kubernetes.client import BatchV1Api

    run = instance.get_run_by_id(run_id)
    stopped = (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED)
    if run is None or run.status not in stopped:
        return
    launcher = cast("K8sRunLauncher", instance.run_launcher)
    namespace = launcher.get_container_context_for_run(run).namespace
    # The executor has loaded the cluster's address and credentials.
    jobs = BatchV1Api()
    selector = f"dagster/run-id={run_id},app.kubernetes.io/component=step_worker"
    for job in jobs.list_namespaced_job(namespace, label_selector=selector).items:
        jobs.delete_namespaced_job(job.metadata.name, namespace, propagation_policy="Background")


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return `below` with `above` laid over it, mapping by mapping."""
    merged = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], Mapping) and isinstance(above[key], Mapping):
            merged[key] = _merge(below[key], above[key])
    return merged


def _validate(step_pods: Mapping[str, Any], steps: Collection[str]) -> None:
    from dagster_k8s.job import USER_DEFINED_K8S_CONFIG_KEY, get_user_defined_k8s_config

    for step, config in step_pods.items():
        if step not in steps:
            raise LoraAssetsError(
                f"LORA_ASSETS_STEP_PODS has the unknown step {step!r}",
                f"Steps are {', '.join(steps)}.",
            )
        try:
            get_user_defined_k8s_config({USER_DEFINED_K8S_CONFIG_KEY: json.dumps(config)})
        except Exception as error:  # noqa: BLE001 (dagster-k8s raises Exception itself)
            fields = error.errors if isinstance(error, dg.DagsterInvalidConfigError) else ()
            cause = fields[0].message if fields else error
            raise LoraAssetsError(
                f"LORA_ASSETS_STEP_PODS of {step}: {cause}",
                "Name fields of Kubernetes' Container, PodSpec or JobSpec.",
            ) from None
