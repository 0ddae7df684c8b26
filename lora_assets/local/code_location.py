"""The code location that runs of this process are shown in."""

import json
from typing import Any

import dagster as dg

LOCATION = "lora_assets.definitions"
"""As workspace.yaml has it."""

TAG, LABEL = ".dagster/repository", f"__repository__@{LOCATION}"
"""By this Dagster finds the runs of a job; it sets it for what it launches itself."""


def show_in_location(instance: dg.DagsterInstance, run_id: str) -> None:
    """Let the UI show a run of this process, which has the tag, among those of the code location.

    Its timeline goes by the origin of a run's job, which `execute_in_process` takes from nobody.
    """
    run = instance.get_run_by_id(run_id)
    if run is None:
        return
    location = {"__class__": "RegisteredRepositoryLocationOrigin", "location_name": LOCATION}
    repository = {
        "__class__": "ExternalRepositoryOrigin",
        "repository_location_origin": location,
        "repository_name": "__repository__",
    }
    # The classes are private; their stored form is what every run storage holds.
    origin: Any = dg.deserialize_value(
        json.dumps(
            {
                "__class__": "ExternalPipelineOrigin",
                "external_repository_origin": repository,
                "pipeline_name": run.job_name,
            }
        )
    )
    instance.run_storage.replace_job_origin(run, origin)
