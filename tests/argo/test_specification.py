"""The workflows have the parameters, steps and resources of the specification's tables."""

import pytest

from tests.support.argo_specification import ResourceRow, read
from tests.support.argo_workflows import STAGES, WORKFLOWS, templates_of

SPECIFIED = read()
FOLLOWING = ResourceRow(
    node="any",
    gpu="-",
    requests={"cpu": "250m", "memory": "256Mi"},
    limits={"cpu": "500m", "memory": "512Mi"},
)
"""The lightest row of every table: enough for a step that only follows a run of Dagster."""


@pytest.mark.parametrize("name", STAGES)
def test_a_workflow_has_the_steps_of_its_table_in_their_order(name: str) -> None:
    groups = templates_of(WORKFLOWS[name])[name]["steps"]
    assert tuple(step["name"] for group in groups for step in group) == SPECIFIED[name].steps


def test_candidate_and_live_answer_side_by_side() -> None:
    groups = templates_of(WORKFLOWS["evaluate-lora-adapter"])["evaluate-lora-adapter"]["steps"]
    parallel = [[step["name"] for step in group] for group in groups if len(group) > 1]
    assert parallel == [["inference-candidate", "inference-live"]]


@pytest.mark.parametrize("name", STAGES)
def test_a_step_asks_for_the_light_row_and_never_for_a_gpu(name: str) -> None:
    """Dagster's step pod asks for the table's row, so the GPU is reserved once."""
    if name != "train-validate-lora":
        assert FOLLOWING in SPECIFIED[name].resources.values()
    assert FOLLOWING in SPECIFIED["train-validate-lora"].resources.values()
    step = templates_of(WORKFLOWS[name])["step"]
    assert step["container"]["resources"] == {
        "requests": FOLLOWING.requests,
        "limits": FOLLOWING.limits,
    }
    assert not {"nodeSelector", "tolerations", "affinity"} & step.keys()
