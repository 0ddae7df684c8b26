"""The entry point: every command, and the one line for each of its errors."""

import ast
import atexit
import gc
import os
import sys
from pathlib import Path
from traceback import format_exception

import click
from click.shell_completion import add_completion_class

from lora_assets.cli.bash_words import WholeWords
from lora_assets.cli.quiet import QUIET, Quietable
from lora_assets.errors import ConnectionLost, LoraAssetsError, Stopped
from lora_assets.heavy_imports import heavy_imports
from lora_assets.stop_signals import raising_stopped

_STAGES = ("train", "deploy", "evaluate", "performance", "promote")
_LIVE = ("rollback", "history")
_FILES = dict.fromkeys(_STAGES, "stages") | dict.fromkeys(_LIVE, "rollback")
_OTHERS = "ask report status data adopt register restore terminate serve demo"
_COMMANDS = ("check", *_STAGES, *_LIVE, *_OTHERS.split())


class _Commands(Quietable):
    """Import a command only when it is called: `status` need not wait for torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from importlib import import_module

        if cmd_name not in _COMMANDS:
            return None
        with heavy_imports():
            module = import_module(f"lora_assets.cli.{_FILES.get(cmd_name, cmd_name)}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what each command does, read from its file: to import them all takes a second."""
        width = formatter.width - 6 - max(map(len, _COMMANDS))
        with formatter.section("Commands"):
            formatter.write_dl([(name, _first_sentence(name, width)) for name in _COMMANDS])


def _first_sentence(command: str, width: int) -> str:
    file = Path(__file__).with_name(f"{_FILES.get(command, command)}.py")
    (function,) = (
        node
        for node in ast.parse(file.read_bytes()).body
        if isinstance(node, ast.FunctionDef) and node.name == command
    )
    return click.Command(command, help=ast.get_docstring(function)).get_short_help_str(width)


@click.group(
    cls=_Commands,
    # Only their names, for the one that was meant where one is not there.
    commands={name: click.Command(name) for name in _COMMANDS},
    params=[QUIET],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="lora-assets")
def cli() -> None:
    """Take a new version of training data to a LoRA adapter in live traffic, and back."""


def main() -> None:
    """Run a command; exit with 1 and one line per cause when it fails.

    A lost connection to Dagster exits with 75 (EX_TEMPFAIL): only that is worth a retry. A signal
    exits with 128 + its number.
    """
    from lora_assets.records.run_outcome import RunFailed, full_disk

    add_completion_class(WholeWords)
    # The last garbage collection takes seconds, and the system takes the memory anyway.
    atexit.register(gc.freeze)
    try:
        with raising_stopped():
            sys.exit(cli.main(standalone_mode=False))
    except click.exceptions.NoArgsIsHelpError as error:
        sys.exit(error.format_message())
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "lora-assets"
        sys.exit(f"error: {error.format_message()} See '{command} --help'.")
    except click.Abort:
        sys.exit("error: stopped")
    except Stopped as stopped:
        click.echo(f"error: {stopped}", err=True)
        sys.exit(128 + stopped.number)
    except ConnectionLost as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(os.EX_TEMPFAIL)
    except LoraAssetsError as error:
        sys.exit(f"error: {error}")
    except RunFailed as error:
        sys.exit("\n".join(f"error: {reason}" for reason in error.reasons))
    except Exception as error:
        trace = "".join(format_exception(error))
        reason = full_disk(trace) or _refused_by_system(error) or _database_failure(error)
        if reason is None:
            raise
        sys.exit(f"error: {reason}")


def _refused_by_system(error: Exception) -> str | None:
    """Return what the operating system refused, as one line; None for another error."""
    if not isinstance(error, OSError):
        return None
    named = f"{error.filename}: " if error.filename else ""
    return f"{named}{error.strerror or error}. Correct that file or folder, then run this again."


def _database_failure(error: BaseException | None) -> str | None:
    """Return what a database said, as one line; None for another error."""
    from sqlalchemy.exc import OperationalError

    while error is not None:
        if isinstance(error, OperationalError):
            reason = " ".join(str(error.orig).split())
            return (
                f"Dagster's or MLflow's database can't be used ({reason}): start it, or free "
                "space on its disk, then run this again."
            )
        error = error.__cause__
    return None


if __name__ == "__main__":
    main()
