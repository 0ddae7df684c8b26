"""terminate: what a workflow that was stopped left running in Dagster."""

import time

import click

from lora_assets.assets.run_tags import ARGO_WORKFLOW
from lora_assets.errors import ConnectionLost, LoraAssetsError
from lora_assets.remote.run import RemoteRun
from lora_assets.remote.webserver import PAUSES, DagsterWebserver
from lora_assets.settings import read_settings


@click.command()
def terminate() -> None:
    """Terminate the runs of the Argo workflow that LORA_ASSETS_ARGO_WORKFLOW names.

    The workflow's exit handler runs this: a stop may come while no step is there that could do
    it, between two attempts or as one starts. It waits for a Dagster that can't be reached,
    since Argo tries nothing again once a workflow was stopped.
    """
    settings = read_settings()
    if not settings.dagster_url or not settings.argo_workflow:
        raise LoraAssetsError(
            "Whose runs to terminate, and where, is not said",
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
