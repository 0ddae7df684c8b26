"""A signal that comes while no run is under way."""

import os
import signal
from pathlib import Path

import pytest

from lora_assets.resources.registry import Registry
from tests.support.commands import command


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_that_is_stopped_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    number: int,
    code: int,
) -> None:
    monkeypatch.setattr(Registry, "standing", lambda _: os.kill(os.getpid(), number))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        ended = command(["status"], {"LORA_ASSETS_HOME": str(tmp_path)}, monkeypatch, capfd)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert (ended.code, ended.out, ended.err) == (code, "", "error: stopped\n")


def test_a_sigint_that_was_ignored_is_ignored_still(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def interrupted(_: Registry) -> dict[str, object]:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        return {}

    monkeypatch.setattr(Registry, "standing", interrupted)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ended = command(["status"], {"LORA_ASSETS_HOME": str(tmp_path)}, monkeypatch, capfd)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (ended.code, ended.err) == (143, "error: stopped\n")
