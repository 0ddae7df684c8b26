"""data build: write a data version from the documentation of AWS operations."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import click

from lora_assets.cli.stack import Stack
from lora_assets.embedded.data_set.versions import build as build_version
from lora_assets.embedded.data_set.versions import contents
from lora_assets.local.instance import add_partitions


@click.group()
def data() -> None:
    """Build and list data versions.

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


@data.command("list")
def list_versions() -> None:
    """Make every complete data version in the bucket a partition, and print their names."""
    stack = Stack({})
    versions = stack.resources.data_bucket.versions()
    add_partitions(stack.open_instance(), versions)
    click.echo(f"data versions: {', '.join(versions) or 'none yet'}")
