"""The help, and what stands beside a command that is not there."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from lora_assets.cli.main import cli
from tests.support.commands import Run, command, commands


@pytest.mark.parametrize(
    ("typed", "meant"),
    [(("statu",), "status"), (("data", "lst"), "list"), (("perfomance",), "performance")],
)
def test_the_command_that_was_meant_is_named(run: Run, typed: tuple[str, ...], meant: str) -> None:
    ended, _ = run({}, *typed)
    assert f"No such command '{typed[-1]}'. Did you mean '{meant}'? See " in str(ended)


@pytest.mark.integration
@pytest.mark.parametrize("command", [(), ("data", "add")])
def test_a_short_h_helps(command: tuple[str, ...]) -> None:
    # In a process of its own: click keeps a command's first help option.
    program = [sys.executable, "-m", "lora_assets.cli.main", *command, "-h"]
    ended = subprocess.run(program, capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("Usage: ")


def test_the_help_has_of_each_command_what_click_would_write() -> None:
    context = click.Context(cli)
    ours, clicks = context.make_formatter(), context.make_formatter()
    cli.format_commands(context, ours)
    click.Group.format_commands(cli, context, clicks)
    assert ours.getvalue() == clicks.getvalue() != ""


def test_what_a_command_does_fits_into_80_columns() -> None:
    groups = [cli, *(each for _, each in commands() if isinstance(each, click.Group))]
    for group in groups:
        context = click.Context(group)
        formatter = click.HelpFormatter(width=78)
        group.format_commands(context, formatter)
        shown = formatter.getvalue()
        assert all(f"  {name} " in shown for name in group.list_commands(context))
        assert [line for line in shown.splitlines() if line.endswith("...")] == []


@pytest.mark.integration
@pytest.mark.parametrize("arrange", [lambda words: ("-q", *words), lambda words: (*words, "-q")])
def test_quiet_leaves_results_and_errors_before_the_command_and_after_it(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path,
    arrange: Callable[[tuple[str, ...]], tuple[str, ...]],
) -> None:  # fmt: skip
    environment = {"LORA_ASSETS_HOME": str(tmp_path)}
    build = ("data", "build", "--data-version", "1", "--services", "s3")
    loud = command(build, environment, monkeypatch, capfd)
    quiet = command(arrange(build), environment, monkeypatch, capfd)
    assert (loud.out, loud.err != "") == (quiet.out, True)
    assert quiet.err == ""
    for given, cause in (("--data-version 9", "Data version 9 has no file:"),
                         ("--num-epochs few", "Invalid value for '--num-epochs'")):  # fmt: skip
        words, stderr = arrange(("train", *given.split())), sys.stderr
        refused = command(words, environment, monkeypatch, capfd)
        assert str(refused.code).startswith(f"error: {cause}")
        assert sys.stderr is stderr
