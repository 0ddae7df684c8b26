"""A signal that comes while no run is under way."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from lora_assets.resources.registry import Registry
from tests.support.commands import command


@pytest.mark.parametrize(
    ("was", "numbers", "code"),
    [
        (signal.default_int_handler, [signal.SIGINT], 130),
        (signal.default_int_handler, [signal.SIGTERM], 143),
        # As in the background of a script: it is ignored still.
        (signal.SIG_IGN, [signal.SIGINT, signal.SIGTERM], 143),
    ],
)
def test_a_command_that_is_stopped_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path,
    was: Any, numbers: list[int], code: int,
) -> None:  # fmt: skip
    def interrupted(_: Registry) -> None:
        for number in numbers:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Registry, "standing", interrupted)
    before = signal.signal(signal.SIGINT, was)
    try:
        ended = command(["status"], {"LORA_ASSETS_HOME": str(tmp_path)}, monkeypatch, capfd)
        assert signal.getsignal(signal.SIGINT) is was
    finally:
        signal.signal(signal.SIGINT, before)
    assert (ended.code, ended.out, ended.err) == (code, "", "error: stopped\n")
