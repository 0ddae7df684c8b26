"""report: one page on a data version, for the one who has to approve it."""

from pathlib import Path
from typing import Any

import click

from lora_assets.assets.report import ARTIFACT, make_report
from lora_assets.cli.completions import data_versions
from lora_assets.cli.result import json_option, print_json
from lora_assets.cli.stack import Stack, stack_options
from lora_assets.records.dataset import require_version_name


@click.command()
@click.option(
    "--data-version", required=True, help="The page's data version", shell_complete=data_versions
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write  [default: report-VERSION.html]",
)
@stack_options("model_name", "mlflow_tracking_uri")
@json_option
def report(data_version: str, output: Path | None, **options: Any) -> None:
    """Write one HTML page on a data version.

    It has the gates, the learning curve, examples, latencies, lineage and how to reproduce it, and
    is kept with the training's MLflow run.
    """
    require_version_name(data_version)
    registry = Stack(options).known_registry()
    page, run_id = make_report(registry, data_version)
    file = output or Path(f"report-{data_version}.html")
    file.write_text(page)
    registry.tracking.keep_report(run_id, page, ARTIFACT)
    kept = {"file": str(file), "run": registry.tracking.page(run_id)}
    if not print_json(kept):
        click.echo(f"{file}, and {ARTIFACT}.html in {kept['run']}")
