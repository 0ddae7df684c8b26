"""Step pods held against the specification's own resource tables."""

from collections.abc import Mapping

import pytest
from dagster_k8s.job import UserDefinedDagsterK8sConfig, get_user_defined_k8s_config
from kubernetes.utils import parse_quantity

from lora_assets.definitions import ASSETS, CHECKS
from tests.support.argo_specification import read

TABLES = {workflow: tables.resources for workflow, tables in read().items()}

PLACES: Mapping[str, tuple[str, str]] = {
    "training_data": ("train-validate-lora", "download-data"),
    "training_data_data_is_sound": ("train-validate-lora", "download-data"),
    "adapter": ("train-validate-lora", "train"),
    "adapter_quality_gate": ("train-validate-lora", "quality-gate"),
    "gate_result": ("train-validate-lora", "quality-gate"),
    "staged_deployment": ("deploy-lora-adapter", "load-adapter"),
    "staged_deployment_smoke_test": ("deploy-lora-adapter", "smoke-test"),
    "eval_grades": ("evaluate-lora-adapter", "judge-answers"),
    "eval_grades_eval_gate": ("evaluate-lora-adapter", "compare-decision"),
    "perf_metrics": ("performance-test-lora", "run-load-test"),
    "perf_metrics_perf_gate": ("performance-test-lora", "perf-decision"),
    "live_deployment": ("promote-lora-adapter", "promote-adapter"),
}
"""By step of ours, the workflow and the step there whose row it has."""

WITHIN: Mapping[tuple[str, str], str] = {
    ("deploy-lora-adapter", "set-staged-alias"): "staged_deployment_smoke_test",
    ("evaluate-lora-adapter", "download-eval-data"): "eval_grades",
    ("evaluate-lora-adapter", "inference-candidate"): "eval_grades",
    ("evaluate-lora-adapter", "inference-live"): "eval_grades",
    ("performance-test-lora", "download-eval-data"): "perf_metrics",
}
"""Steps of the specification that are a part of another step of ours."""

ROWS = {step: TABLES[workflow][name] for step, (workflow, name) in PLACES.items()}
STEPS = {definition.op.name: definition.op for definition in (*ASSETS, *CHECKS)}


def config(step: str) -> UserDefinedDagsterK8sConfig:
    return get_user_defined_k8s_config(STEPS[step].tags)


def test_every_asset_and_check_has_a_row_and_every_row_a_step() -> None:
    assert PLACES.keys() == STEPS.keys()
    specified = {(workflow, step) for workflow, rows in TABLES.items() for step in rows}
    assert {*PLACES.values(), *WITHIN} == specified


@pytest.mark.parametrize("step", STEPS)
def test_a_step_asks_for_what_its_row_says(step: str) -> None:
    row, asked = ROWS[step], config(step).container_config["resources"]
    gpus = {} if row.gpu == "-" else {"nvidia.com/gpu": row.gpu.partition("x")[0]}
    assert asked == {"requests": {**row.requests, **gpus}, "limits": {**row.limits, **gpus}}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_goes_to_the_node_that_its_row_says(step: str) -> None:
    pod, node = config(step).pod_spec_config, ROWS[step].node
    if node == "any":
        assert not {"node_selector", "tolerations"} & pod.keys()
    else:
        assert f"`{pod['node_selector']['workload']}`" in node
        assert [toleration["key"] for toleration in pod["tolerations"]] == ["nvidia.com/gpu"]


@pytest.mark.parametrize(("place", "step"), WITHIN.items())
def test_a_step_that_does_the_work_of_others_has_room_for_each(
    place: tuple[str, str], step: str
) -> None:
    workflow, part = place
    for of_part, of_step in (
        (TABLES[workflow][part].requests, ROWS[step].requests),
        (TABLES[workflow][part].limits, ROWS[step].limits),
    ):
        for resource, amount in of_part.items():
            assert parse_quantity(of_step[resource]) >= parse_quantity(amount)
