"""The demo before its first run, and its end held against the plan."""

import socket
from pathlib import Path

import pytest

from lora_assets.cli.demo import VERSIONS, DemoVersion, check_outcome
from lora_assets.errors import LoraAssetsError
from tests.support.commands import Run
from tests.support.stack import free_port, stack_environment

SOUND, SPOILED = VERSIONS[1], VERSIONS[2]


def test_a_port_in_use_is_one_line_and_nothing_is_written(run: Run, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended, printed = run(stack_environment(home, port), "demo")
    assert str(ended).startswith(f"error: Can't listen on 127.0.0.1:{port}")
    assert "\n" not in str(ended)
    assert printed == ""
    assert not home.exists()


def test_on_a_cluster_the_demo_is_refused(run: Run, tmp_path: Path) -> None:
    environment = stack_environment(tmp_path / "home", free_port())
    ended, _ = run({**environment, "LORA_ASSETS_STACK": "cluster"}, "demo")
    assert ended == "error: The demo runs on the embedded stack only. Unset LORA_ASSETS_STACK."


def test_a_sound_version_that_became_live_and_a_spoiled_one_that_was_stopped_are_the_plan() -> None:
    check_outcome(SOUND, stopped_by=None, live_changed=True)
    check_outcome(SPOILED, stopped_by="quality_gate", live_changed=False)


@pytest.mark.parametrize(
    ("version", "stopped_by", "live_changed", "message"),
    [
        (SPOILED, None, True, "Data version 3 is spoiled, yet every gate let it pass"),
        (SPOILED, "eval_gate", True, "Live has changed although a gate failed"),
        (SOUND, "eval_gate", False, "stopped by eval_gate.*Look at its verdict"),
        (SOUND, "perf_gate", False, "stopped by perf_gate.*the load test is repeated"),
    ],
)
def test_any_other_end_of_a_data_version_is_an_error(
    version: DemoVersion, stopped_by: str | None, live_changed: bool, message: str
) -> None:
    with pytest.raises(LoraAssetsError, match=message):
        check_outcome(version, stopped_by, live_changed)
