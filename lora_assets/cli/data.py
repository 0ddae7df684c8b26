"""data: check what is to become a data version, build one, list those that are there."""

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import click

from lora_assets.cli.config_options import chosen, config_options
from lora_assets.cli.stack import Stack
from lora_assets.embedded.data_set.versions import build as build_version
from lora_assets.embedded.data_set.versions import contents
from lora_assets.errors import LoraAssetsError
from lora_assets.gates.data import DataThresholds, examine
from lora_assets.local.instance import add_partitions
from lora_assets.records.data_format import FORMAT
from lora_assets.records.dataset import SPLITS


@click.group()
def data() -> None:
    """Describe, check, build and list data versions.

    A data version is an immutable folder of train.jsonl, val.jsonl and eval.jsonl.
    """


@data.command()
@click.option("--data-version", required=True, help="Name of the new data version")
@click.option("--services", required=True, help="AWS services, as in s3,ec2,lambda")
@click.option(
    "--spoiled", is_flag=True, help="Answers that don't come from their context, for trying gates"
)
def build(data_version: str, services: str, spoiled: bool) -> None:
    """Write a data version from botocore's service models, the same bytes every time."""
    names = [name.strip() for name in services.split(",") if name.strip()]
    data_bucket = Stack({}).resources.data_bucket
    bucket = urlsplit(data_bucket.uri)
    if bucket.scheme == "file":
        place = str(build_version(data_version, names, Path(unquote(bucket.path)), spoiled))
    else:
        place = data_bucket.add(data_version, contents(names, spoiled))
    click.echo(f"data version {data_version} is in {place}")


@data.command()
def describe() -> None:
    """Print the format of a data version, field by field, with three rows."""
    click.echo(FORMAT, nl=False)


@data.command()
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, path_type=Path))
@config_options(DataThresholds)
def check(folder: Path, **options: Any) -> None:
    """Print every fault of the data in DIR, a line each: file, line and field.

    End with 1 where training would be refused.
    """
    thresholds = DataThresholds(**chosen(DataThresholds, options))
    files = {split: folder / f"{split}.jsonl" for split in SPLITS}
    contents = {split: file.read_bytes() for split, file in files.items() if file.is_file()}
    faults, notes = examine(contents, thresholds)
    for line in (*faults, *(f"note: {note}" for note in notes)):
        click.echo(line)
    if faults:
        raise LoraAssetsError(
            f"{folder} has {len(faults)} faults", "'lora-assets data describe' prints the format."
        )
    click.echo(f"{folder} is sound", err=True)


@data.command("list")
def list_versions() -> None:
    """Make every complete data version in the bucket a partition, and print their names.

    What is passed over is printed with the reason.
    """
    stack = Stack({})
    versions, passed_over = stack.resources.data_bucket.survey()
    add_partitions(stack.open_instance(), versions)
    click.echo(f"data versions: {', '.join(versions) or 'none yet'}")
    for name, reason in passed_over.items():
        click.echo(f"passed over: {name} {reason}")
