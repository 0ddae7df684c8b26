"""Two commands at once on one home: they take turns, and say for whom they wait."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lora_assets.local.code_location import LABEL
from lora_assets.local.instance import open_instance
from lora_assets.records.progress import PARTITION_TAG
from tests.support.commands import started

pytestmark = pytest.mark.integration

_STEP = """
import sys
from pathlib import Path
import dagster as dg
from lora_assets.assets.graph import data_versions
from lora_assets.assets.graph import TRAINING
from lora_assets.local.console import progress_logger
from lora_assets.local.instance import open_instance
from lora_assets.local.run import run_in_process
from lora_assets.settings import read_settings

data_version, started, ended = sys.argv[1:]

@dg.asset(partitions_def=data_versions, pool=TRAINING)
def adapter():
    Path(started).touch()
    sys.stdin.readline()
    Path(ended).touch()

job = dg.define_asset_job("train", [adapter])
made = dg.Definitions([adapter], jobs=[job], loggers={"console": progress_logger})
instance = open_instance(read_settings().dagster_home, managed=True)
run_in_process(instance, made.resolve_job_def("train"), data_version, {})
"""


def start(home: Path, data_version: str) -> subprocess.Popen[str]:
    """A process that trains a data version until it reads a line."""
    marks = [str(home / f"{data_version}-{mark}") for mark in ("started", "ended")]
    return subprocess.Popen(
        [sys.executable, "-c", _STEP, data_version, *marks],
        env={**os.environ, "LORA_ASSETS_HOME": str(home)},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("ending", ["finishes", "is killed"])
def test_the_second_training_waits_until_the_first_one_ends(tmp_path: Path, ending: str) -> None:
    first = start(tmp_path, "1")
    second = None
    try:
        while not (tmp_path / "1-started").exists():
            assert first.poll() is None, first.communicate()
        second = start(tmp_path, "2")
        assert second.stderr is not None
        told = next(line for line in second.stderr if "waiting for" in line)
        assert "waiting for train of data version 1 (run " in told
        assert not (tmp_path / "2-started").exists()
        if ending == "finishes":
            first.communicate("\n", timeout=60)
        else:
            first.kill()
        assert second.communicate("\n", timeout=120)[0] is None
        assert second.returncode == 0
        assert (tmp_path / "2-ended").exists()
        assert (tmp_path / "1-ended").exists() == (ending == "finishes")
        with open_instance(tmp_path / "dagster", managed=True) as instance:
            runs = {run.tags[PARTITION_TAG]: run for run in instance.get_runs()}
        assert (runs["2"].is_success, runs["1"].is_failure) == (True, ending == "is killed")
        for run in runs.values():
            # By this the UI's timeline finds them.
            assert run.remote_job_origin is not None
            assert run.remote_job_origin.repository_origin.get_label() == LABEL
    finally:
        for process in (first, second):
            if process is not None:
                process.kill()
                process.wait()


def test_commands_that_begin_at_once_on_a_new_home_all_do_their_work(tmp_path: Path) -> None:
    (tmp_path / "bucket/data/processed/1").mkdir(parents=True)
    for split in ("train", "val", "eval"):
        (tmp_path / f"bucket/data/processed/1/{split}.jsonl").touch()
    commands = [("rollback",), ("data", "list"), ("rollback",), ("data", "list")]
    begun = [started(command, {"LORA_ASSETS_HOME": str(tmp_path)}) for command in commands]
    nothing_live = (
        "error: Alias 'previous' of mistral-7b-lora is not set. "
        "See 'lora-assets status' for the aliases there are.\n"
    )
    said = [process.communicate()[0] for process in begun]
    assert said == [nothing_live, "data versions: 1\n"] * 2
