"""--quiet, before a command and after it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr

import click


@contextmanager
def _silence() -> Iterator[None]:
    """Drop what the block writes to stderr: its progress. `main` prints errors after the block."""
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        yield


def _obey(context: click.Context, _: click.Parameter, given: bool) -> None:
    if given:
        # The root is left also where another option of the command is refused.
        context.find_root().with_resource(_silence())


QUIET = click.Option(
    ["--quiet", "-q"],
    is_flag=True,
    expose_value=False,
    callback=_obey,
    help="Print results and errors, and no progress",
)
