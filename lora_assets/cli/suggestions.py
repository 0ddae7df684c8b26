"""A group of commands that says which one was meant."""

from difflib import get_close_matches

import click


class Suggesting(click.Group):
    """Name the nearest command beside one that is not there."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            for near in get_close_matches(args[0], self.list_commands(ctx), n=1):
                text = f"{error.message} Did you mean '{near}'?"
                raise click.UsageError(text, ctx) from None
            raise
