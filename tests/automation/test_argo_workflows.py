"""A data version is its workflow's until that has ended, or starts nothing any more."""

import pytest

from lora_assets.automation.argo_workflows import (
    SECONDS_WITHOUT_A_RUN,
    WorkflowEnd,
    WorkflowRun,
    owners,
)

NOW = 1_000_000.0


def a_run(created: float, data_version: str = "2", workflow: str = "ml/a") -> WorkflowRun:
    return WorkflowRun(
        data_version=data_version, workflow=workflow, created=created, updated=created + 5
    )


def an_end(at: float, data_version: str = "2", workflow: str = "ml/a") -> WorkflowEnd:
    return WorkflowEnd(data_version=data_version, workflow=workflow, at=at)


@pytest.mark.parametrize(
    ("runs", "ends", "left"),
    [
        ([a_run(NOW - 60)], [], {"2": "ml/a"}),
        ([a_run(NOW - 60)], [an_end(NOW - 10)], {}),
        ([a_run(NOW - 60)], [an_end(NOW - 10, data_version="3")], {"2": "ml/a"}),
        ([a_run(NOW - 60), a_run(NOW - 90, workflow="ml/b")], [an_end(NOW - 10)], {"2": "ml/b"}),
        # `argo retry` keeps the name.
        ([a_run(NOW - 60), a_run(NOW - 5)], [an_end(NOW - 10)], {"2": "ml/a"}),
        ([a_run(NOW - 60)], [an_end(NOW - 10), an_end(NOW - 99)], {}),
        ([a_run(NOW - SECONDS_WITHOUT_A_RUN)], [], {"2": "ml/a"}),
        ([a_run(NOW - SECONDS_WITHOUT_A_RUN - 5)], [], {}),
    ],
    ids=[
        *("under way", "ended", "another version ended", "another workflow goes on"),
        *("tried again", "ended twice", "silent for a while", "silent for too long"),
    ],
)
def test_a_version_is_left_to_its_workflow(
    runs: list[WorkflowRun], ends: list[WorkflowEnd], left: dict[str, str]
) -> None:
    assert owners(runs, ends, NOW) == left
