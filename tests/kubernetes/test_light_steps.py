"""Which steps the run's pod has room for."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from lora_assets.definitions import ASSETS, CHECKS
from lora_assets.kubernetes.light_steps import fit_into_run
from tests.support.dagster_services import RUN_RESOURCES
from tests.support.manifests import dagster_values

RUN: Mapping[str, Any] = {"container_config": {"resources": RUN_RESOURCES}}
GATE: Mapping[str, Any] = {
    "container_config": {
        "resources": {"requests": {"cpu": "0.25"}, "limits": {"cpu": 0.5, "memory": "1024Mi"}}
    }
}


def asking(**more: Any) -> Mapping[str, Any]:
    return {"container_config": {**GATE["container_config"], **more}}


def test_a_step_of_the_same_size_or_less_fits_into_the_run() -> None:
    assert fit_into_run([GATE], RUN)
    assert fit_into_run([GATE, RUN], RUN)


@pytest.mark.parametrize(
    "step",
    [
        asking(resources={"limits": {"memory": "1025Mi"}}),
        asking(resources={"requests": {"cpu": "251m"}}),
        asking(resources={"limits": {"nvidia.com/gpu": "1"}}),
        asking(image="vllm-training-tools"),
        asking(env=[{"name": "A", "value": "b"}]),
        {**GATE, "pod_spec_config": {"node_selector": {"workload": "gpu-training"}}},
        {**GATE, "merge_behavior": "SHALLOW"},
        {},
    ],
)
def test_one_step_that_needs_more_gives_each_a_pod(step: Mapping[str, Any]) -> None:
    assert not fit_into_run([GATE, step], RUN)


@pytest.mark.parametrize("run", [{}, {"container_config": {"resources": {"limits": {"cpu": 4}}}}])
def test_a_run_that_does_not_state_its_resources_holds_no_step(run: Mapping[str, Any]) -> None:
    assert not fit_into_run([GATE], run)


def test_a_run_without_steps_has_no_light_ones() -> None:
    assert not fit_into_run([], RUN)


def test_the_run_of_the_clusters_values_holds_all_but_training_evaluation_and_load_test() -> None:
    launcher = dagster_values()["runLauncher"]["config"]["customRunLauncher"]["config"]
    assert launcher["resources"] == RUN_RESOURCES
    heavy = {
        definition.op.name
        for definition in (*ASSETS, *CHECKS)
        if not fit_into_run([json.loads(definition.op.tags["dagster-k8s/config"])], RUN)
    }
    assert heavy == {"adapter", "eval_grades", "perf_metrics"}
