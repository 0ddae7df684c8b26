"""A run that a person stops takes the pods of its steps with it."""

from collections.abc import Iterator
from typing import Any, cast

import dagster as dg
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster_k8s import K8sRunLauncher, k8s_job_executor
from kubernetes.client import BatchV1Api


def make_stoppable(name: str) -> dg.ExecutorDefinition:
    """`k8s_job_executor`, but for what becomes of the steps of a run that is stopped.

    Where a lost run worker is replaced (`run_monitoring.max_resume_run_attempts`), Dagster takes
    every end of a worker for such a loss, and leaves the steps alone: a training that was stopped
    would keep its GPU to its end (dagster#33923).
    """

    def create(context: dg.InitExecutorContext) -> dg.Executor:
        return _Stoppable(k8s_job_executor.executor_creation_fn(context))  # type: ignore[misc]

    return dg.ExecutorDefinition(
        name=name,
        config_schema=k8s_job_executor.config_schema,  # type: ignore[arg-type]
        requirements=k8s_job_executor.get_requirements,
        executor_creation_fn=create,
    )


class _Stoppable(dg.Executor):
    def __init__(self, steps: dg.Executor) -> None:
        self._steps = steps

    @property
    def retries(self) -> Any:
        return self._steps.retries

    @property
    def step_dependency_config(self) -> Any:
        return self._steps.step_dependency_config

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        try:
            yield from self._steps.execute(plan_context, execution_plan)
        finally:
            _end_steps_if_stopped(plan_context.instance, plan_context.run_id)


def _end_steps_if_stopped(instance: dg.DagsterInstance, run_id: str) -> None:
    run = instance.get_run_by_id(run_id)
    if run is None or run.status not in (
        dg.DagsterRunStatus.CANCELING,
        dg.DagsterRunStatus.CANCELED,
    ):
        return
    launcher = cast("K8sRunLauncher", instance.run_launcher)
    namespace = launcher.get_container_context_for_run(run).namespace
    # The executor has loaded the cluster's address and credentials.
    jobs = BatchV1Api()
    selector = f"dagster/run-id={run_id},app.kubernetes.io/component=step_worker"
    for job in jobs.list_namespaced_job(namespace, label_selector=selector).items:
        jobs.delete_namespaced_job(job.metadata.name, namespace, propagation_policy="Background")
