"""terminate: end the runs that a stopped workflow left in Dagster."""

import time

import click

from lora_assets.assets.run_tags import ARGO_WORKFLOW
from lora_assets.errors import ConnectionLost, LoraAssetsError
from lora_assets.remote.run import RemoteRun
from lora_assets.remote.webserver import PAUSES, DagsterWebserver
from lora_assets.settings import read_settings


@click.command()
def terminate() -> None:
    """Terminate the runs of LORA_ASSETS_ARGO_WORKFLOW.

    The workflow's exit handler runs this: a stop may come between two attempts of a step, when no
    step is there to do it. It waits for a Dagster that can't be reached, since Argo retries
    nothing once a workflow was stopped.
    """
    settings = read_settings()
    if not settings.dagster_url or not settings.argo_workflow:
        raise LoraAssetsError(
            "The workflow whose runs to terminate, or its Dagster, is not given",
            "Set LORA_ASSETS_ARGO_WORKFLOW and DAGSTER_URL.",
        )
    dagster = DagsterWebserver(settings.dagster_url, settings.dagster_ui_url)
    runs = RemoteRun(dagster, {ARGO_WORKFLOW: settings.argo_workflow}, click.echo)
    while True:
        try:
            click.echo(runs.terminate())
            return
        except ConnectionLost as error:
            click.echo(str(error), err=True)
            time.sleep(PAUSES[-1])
