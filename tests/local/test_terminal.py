"""The console's lines: progress as a bar on a terminal."""

import os
import pty
import termios

import click
import pytest

from lora_assets.local.terminal import bar, bar_cleared, say
from lora_assets.records.run_outcome import progress_line


@pytest.mark.parametrize(
    ("message", "drawn"),
    [
        (
            "trained 160 of 400 steps, 6.81/s, 35 s to go",
            "trained [####......] 160/400 steps, 6.81/s, 35 s to go",
        ),
        (
            "trained 800 of 2000 tokens, 2140/s, 1 s to go, loss 0.1234",
            "trained [####......] 800/2000 tokens, 2140/s, 1 s to go, loss 0.1234",
        ),
        ("load test: 0 of 3000 requests", "load test: [..........] 0/3000 requests"),
        ("live: answered 9 of 9", "live: answered [##########] 9/9"),
        *((line, None) for line in ("done in 0.1 s", "the judge gave 10 of 10 right answers an A")),
        ("read train 49, val 5 rows", None),
    ],
)
def test_progress_is_a_bar_with_its_rate_and_the_time_to_go(
    message: str, drawn: str | None
) -> None:
    shown = drawn and progress_line("adapter", drawn)
    assert bar(progress_line("adapter", message), 120) == shown


def test_a_bar_is_gone_from_a_terminal_before_anything_else_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = progress_line("adapter", "trained 80 of 100 tokens, 2140/s, 1 s to go, loss 0.1234")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with open(theirs, "w") as terminal, monkeypatch.context() as patched:
        patched.setattr("sys.stderr", terminal)
        with bar_cleared():
            say(trained)
            say("  waiting for another run")
            say(trained)
        click.echo("error: stopped", err=True)
        written = ""
        while not written.endswith("stopped\r\n"):
            written += os.read(ours, 4096).decode()
    os.close(ours)
    drawn = "  adapter trained [########..] 80/100 tokens, 2140/s, 1 s to go, loss 0.1234"
    first, second, rest = written.split("\r\n")
    assert first.split("\r\033[K") == ["", drawn, "  waiting for another run"]
    assert second.split("\r\033[K") == ["", drawn, "error: stopped"]
    assert rest == ""
    assert len(bar(trained, 60) or "") == 59
