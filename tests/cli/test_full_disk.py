"""A disk that is really full: each command ends in one line, and goes on once there is room."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from lora_assets.assets.graph import data_versions
from lora_assets.local.run import run_in_process
from lora_assets.records.run_outcome import RunFailed

pytestmark = pytest.mark.integration

COMMAND = (sys.executable, "-m", "lora_assets.cli.main")
SPACE = 32 << 20
ROOM_FOR_DATABASES = 1100 << 10
"""Dagster and MLflow make theirs in it; checkpoints find no place beside them."""


@dataclass(frozen=True)
class SmallDisk:
    """A disk of SPACE bytes at `path`, which the namespaces of the process `holder` alone have."""

    holder: int
    path: Path

    @property
    def seen_from_here(self) -> Path:
        return Path(f"/proc/{self.holder}/root{self.path}")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command with its home on this disk."""
        enter = ("nsenter", f"--target={self.holder}", "--user", "--mount")
        return subprocess.run(
            [*enter, "--preserve-credentials", *COMMAND, *arguments],
            env={**os.environ, "LORA_ASSETS_HOME": str(self.path / "home")},
            capture_output=True,
            text=True,
        )

    def leave(self, free: int) -> None:
        """Fill the disk but for `free` bytes."""
        ballast = self.seen_from_here / "ballast"
        ballast.unlink(missing_ok=True)
        found = os.statvfs(self.seen_from_here)
        ballast.write_bytes(bytes(found.f_bavail * found.f_frsize - free))

    def leftovers(self) -> list[str]:
        """What a write that is given up would leave beside the file that it was to become."""
        home = self.seen_from_here / "home"
        return [path.name for path in home.rglob(".*") if path.name != ".lock"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    mount = (
        f"mount -t tmpfs -o size={SPACE} small {tmp_path} && echo mounted && exec sleep infinity"
    )
    apart = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount)
    with subprocess.Popen(apart, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stderr is not None
        if holder.stdout.readline() != b"mounted\n":
            pytest.skip(f"This machine lets nobody mount a disk: {holder.stderr.read().decode()}")
        yield SmallDisk(holder.pid, tmp_path)
        holder.kill()


def the_error(ended: subprocess.CompletedProcess[str]) -> str:
    """The one line that a command failed with."""
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    (line,) = (line for line in ended.stderr.splitlines() if line.startswith("error: "))
    return line


def test_a_full_disk_loses_nothing_and_training_goes_on_once_there_is_room(
    small_disk: SmallDisk,
) -> None:
    built = small_disk.run("data", "build", "--data-version", "1", "--services", "sqs")
    assert built.returncode == 0
    train = ["train", "--data-version", "1", "--num-epochs", "1", "--max-eval-loss", "9"]
    train += ["--max-perplexity", "9999"]
    for free in (0, ROOM_FOR_DATABASES):
        small_disk.leave(free)
        error = the_error(small_disk.run(*train))
        assert re.search("full|disk I/O", error)
        assert re.search("room|space", error)
        assert small_disk.leftovers() == []
    small_disk.leave(SPACE // 2)
    assert small_disk.run(*train).returncode == 0


def test_a_full_disk_that_a_step_meets_is_one_line() -> None:
    @dg.asset(partitions_def=data_versions)
    def thesis() -> None:
        Path("/dev/full").write_bytes(b"words")

    jobs = [dg.define_asset_job("write", [thesis])]
    write = dg.Definitions([thesis], jobs=jobs).resolve_job_def("write")
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(RunFailed) as failed:
        run_in_process(instance, write, "1", {})
    (reason,) = failed.value.reasons
    assert reason.startswith("thesis: The disk is full (OSError: [Errno 28]")
    assert reason.endswith("Free some space, then run this again; it goes on where it was.")
    assert "\n" not in reason


def test_a_full_disk_that_a_command_meets_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run([*COMMAND, "--help"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert the_error(ended).startswith("error: The disk is full (OSError: [Errno 28]")
