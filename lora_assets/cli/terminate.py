"""terminate: end the runs that a workflow left in Dagster, and report that it has ended."""

import time

import click

from lora_assets.errors import ConnectionLost, LoraAssetsError
from lora_assets.records.progress import PARTITION_TAG
from lora_assets.records.run_tags import ARGO_WORKFLOW, WORKFLOW_ENDS, workflow_end
from lora_assets.remote.run import RemoteRun
from lora_assets.remote.webserver import PAUSES, DagsterWebserver
from lora_assets.settings import read_settings


@click.command()
def terminate() -> None:
    """Terminate the runs of a workflow, and report its end.

    The exit handler of LORA_ASSETS_ARGO_WORKFLOW runs this: a stop may come between two attempts
    of a step, when no step is there to do it. Until the end is reported, the sensor
    `new_data_versions` leaves the workflow's data versions to it. This waits for a Dagster that
    can't be reached, since Argo retries nothing once a workflow was stopped.
    """
    settings = read_settings()
    if not settings.dagster_url or not settings.argo_workflow:
        raise LoraAssetsError(
            "The workflow whose runs to terminate, or its Dagster, is not given",
            "Set LORA_ASSETS_ARGO_WORKFLOW and DAGSTER_URL.",
        )
    dagster = DagsterWebserver(settings.dagster_url, settings.dagster_ui_url)
    tags = {ARGO_WORKFLOW: settings.argo_workflow}
    runs = RemoteRun(dagster, tags, click.echo)
    while True:
        try:
            click.echo(runs.terminate())
            versions = {run.tags[PARTITION_TAG] for run in dagster.runs(tags)}
            if versions:
                end = workflow_end(settings.argo_workflow)
                dagster.observe(WORKFLOW_ENDS, sorted(versions), end)
            return
        except ConnectionLost as error:
            click.echo(str(error), err=True)
            time.sleep(PAUSES[-1])
