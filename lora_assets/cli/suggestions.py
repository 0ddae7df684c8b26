"""A group of commands: it says which one was meant, and each takes --quiet."""

from copy import copy
from difflib import get_close_matches

import click

from lora_assets.cli.quiet import QUIET


class Suggesting(click.Group):
    """Name the nearest command beside one that is not there; give --quiet to one that is."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            name, found, rest = super().resolve_command(ctx, args)
        except click.UsageError as error:
            for near in get_close_matches(args[0], self.list_commands(ctx), n=1):
                text = f"{error.message} Did you mean '{near}'?"
                raise click.UsageError(text, ctx) from None
            raise
        command = copy(found)
        if command is not None:
            command.params = [*command.params, QUIET]
        return name, command, rest
