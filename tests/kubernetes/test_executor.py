"""Which executor a code location has, and what its deployment may change in step pods."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dagster as dg
import pytest

from lora_assets.definitions import ASSETS, CHECKS, make_definitions
from lora_assets.errors import LoraAssetsError
from lora_assets.settings import read_settings
from tests.support.manifests import REFUSED


def global_job(**environment: str) -> dg.JobDefinition:
    """The job that a materialisation in the UI runs."""
    return make_definitions(read_settings(environment)).resolve_job_def("__ASSET_JOB")


def resolved_job(step_pods: Any) -> dg.JobDefinition:
    return global_job(LORA_ASSETS_EXECUTOR="k8s_job", LORA_ASSETS_STEP_PODS=json.dumps(step_pods))


@pytest.mark.parametrize(
    ("environment", "executor"),
    [
        ({}, "in_process"),
        ({"LORA_ASSETS_EXECUTOR": "multiprocess"}, "multiprocess"),
        ({"LORA_ASSETS_EXECUTOR": "k8s_job"}, "k8s_job"),
    ],
)
def test_the_environment_chooses_the_executor(environment: dict[str, str], executor: str) -> None:
    assert global_job(**environment).executor_def.name == executor


def test_only_steps_with_a_pod_of_their_own_are_retried() -> None:
    in_pods: Sequence[Any] = global_job(LORA_ASSETS_EXECUTOR="k8s_job").nodes
    assert {node.name for node in in_pods} == {d.op.name for d in (*ASSETS, *CHECKS)}
    assert all(node.definition.retry_policy for node in in_pods)
    for executor in ("in_process", "multiprocess"):
        nodes: Sequence[Any] = global_job(LORA_ASSETS_EXECUTOR=executor).nodes
        assert not any(node.definition.retry_policy for node in nodes)


def returns() -> int:
    raise LoraAssetsError("No bytes", "Bring some.")


def yields() -> Iterator[dg.Output[int]]:
    yield dg.Output(returns())


@pytest.mark.parametrize("body", [returns, yields])
def test_an_exception_in_a_step_with_a_pod_allows_no_retry(body: Callable[[], object]) -> None:
    from lora_assets.kubernetes.lost_pods import retry_lost_pods

    failing = retry_lost_pods(dg.asset(body))
    result = dg.materialize([failing], raise_on_error=False)
    (failure,) = result.get_step_failure_events()
    error = failure.step_failure_data.error
    assert error
    assert error.cause
    assert "No bytes. Bring some." in error.cause.message
    assert not [event for event in result.all_events if event.is_step_up_for_retry]


def validated(config: Any) -> Any:
    return dg.validate_run_config(resolved_job({}), {"execution": {"config": config}})


OF_RUNS = [{"step_k8s_config": p, "per_step_k8s_config": {"adapter": p}} for p in REFUSED["pods"]]


@pytest.mark.parametrize("config", [*OF_RUNS, *REFUSED["executor"]], ids=str)
def test_a_runs_configuration_starts_no_other_code_and_gets_no_other_rights(config: Any) -> None:
    for field in config:
        with pytest.raises(dg.DagsterInvalidConfigError, match="unexpected config entry"):
            validated({field: config[field]})


def test_a_runs_configuration_chooses_sizes_and_nodes() -> None:
    nodes = {"node_selector": {"workload": "gpu-l40"}, "tolerations": [{"key": "l40"}]}
    sizes = {"container_config": {"resources": {"limits": {"cpu": "2"}}}, "pod_spec_config": nodes}
    config = {"step_k8s_config": sizes, "per_step_k8s_config": {"adapter": sizes}}
    assert config.items() <= validated(config)["execution"]["k8s_job"].items()


@pytest.mark.parametrize(
    ("step_pods", "message"),
    [
        ({"trainer": {}}, r"unknown step 'trainer'.*adapter"),
        ({"adapter": {"container": {}}}, r'of adapter: .*"container"'),
        ({"adapter": {"container_config": {"imag": "x"}}}, r"of adapter: .*imag"),
        ([], "valid dictionary, not"),
    ],
)
def test_step_pods_that_can_not_be_are_refused_when_the_location_loads(
    step_pods: object, message: str
) -> None:
    with pytest.raises(LoraAssetsError, match=message):
        resolved_job(step_pods)


def test_step_pods_that_are_no_json_are_refused() -> None:
    with pytest.raises(LoraAssetsError, match="LORA_ASSETS_STEP_PODS: Invalid JSON"):
        read_settings({"LORA_ASSETS_STEP_PODS": "{"})


def test_a_step_in_the_runs_own_pod_that_is_interrupted_is_not_retried() -> None:
    from lora_assets.kubernetes.lost_pods import no_pods_to_lose, retry_lost_pods

    def stopped() -> None:
        raise KeyboardInterrupt

    with no_pods_to_lose(), pytest.raises(KeyboardInterrupt):
        dg.materialize([retry_lost_pods(dg.asset(stopped))])
    retried = dg.materialize([retry_lost_pods(dg.asset(stopped))], raise_on_error=False)
    assert len([event for event in retried.all_events if event.is_step_up_for_retry]) == 3
