"""The data version that a command works on where none is given."""

from typing import TYPE_CHECKING

import click

from lora_assets.cli.completions import data_versions

if TYPE_CHECKING:
    from lora_assets.resources.data_bucket import DataBucket

data_version_option = click.option(
    "--data-version",
    default=None,
    help="Training data version  [default: the newest]",
    shell_complete=data_versions,
)


def newest_data_version(bucket: "DataBucket") -> str:
    """Return the newest data version of the bucket, and name it to the person."""
    newest = bucket.newest()
    click.echo(f"data version {newest}, the newest in {bucket.uri}", err=True)
    return newest
