"""--quiet, before a command and after it."""

import os
from contextlib import redirect_stderr
from copy import copy

import click


def _obey(context: click.Context, _: click.Parameter, given: bool) -> None:
    """Drop what goes to stderr, a command's progress; `main` prints errors after the context."""
    if given:
        # The root is left also where another option of the command is refused.
        root = context.find_root()
        nowhere = root.with_resource(open(os.devnull, "w"))  # noqa: SIM115 (the root closes it)
        root.with_resource(redirect_stderr(nowhere))


QUIET = click.Option(
    ["--quiet", "-q"],
    is_flag=True,
    expose_value=False,
    callback=_obey,
    help="Print results and errors, and no progress",
)


class Quietable(click.Group):
    """Give --quiet to each of its commands."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, found, rest = super().resolve_command(ctx, args)
        command = copy(found)
        if command is not None:
            command.params = [*command.params, QUIET]
        return name, command, rest
