"""A run of this process is one of the code location, as the UI sees it."""

import dagster as dg

from lora_assets.local.code_location import LABEL, LOCATION, TAG, show_in_location
from tests.support.manifests import REPOSITORY


@dg.job
def empty() -> None:
    pass


def test_a_run_of_this_process_belongs_to_the_code_location_and_stays_what_it_is() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = empty.execute_in_process(instance=instance, tags={TAG: LABEL, "own": "tag"})
        show_in_location(instance, result.run_id)
        (run,) = instance.get_runs(dg.RunsFilter(tags={TAG: LABEL}))
        origin = run.remote_job_origin
        assert origin is not None
        assert origin.location_name == LOCATION
        assert origin.repository_origin.get_label() == LABEL
        assert (run.job_name, run.status, run.tags["own"]) == (
            "empty",
            dg.DagsterRunStatus.SUCCESS,
            "tag",
        )


def test_the_code_location_has_the_name_that_make_ui_gives_it() -> None:
    assert f"python_module: {LOCATION}" in (REPOSITORY / "workspace.yaml").read_text()
