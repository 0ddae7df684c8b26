"""Whose process is gone, and whose only can't be seen."""

import subprocess
import sys
from pathlib import Path

import pytest
from dagster import DagsterRun, DagsterRunStatus

from lora_assets.local.dead_processes import PROCESS_TAG, fail_runs_of_dead_processes, living
from lora_assets.local.instance import open_instance

pytestmark = pytest.mark.integration

_LOOK = """
import os, sys
from pathlib import Path
from lora_assets.local.instance import open_instance

assert os.getpid() == 1
open_instance(Path(sys.argv[1]), managed=True)
"""


def test_a_living_process_is_not_judged_dead_from_another_pid_namespace(tmp_path: Path) -> None:
    apart = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc")
    look = (*apart, sys.executable, "-c", _LOOK, str(tmp_path))
    with open_instance(tmp_path, managed=True) as instance, living(instance) as process:
        run = DagsterRun("train", status=DagsterRunStatus.STARTED, tags={PROCESS_TAG: process})
        instance.add_run(run)
        subprocess.run(look, check=True)
        (found,) = instance.get_runs()
    assert found.status == DagsterRunStatus.STARTED
    assert not list((tmp_path / "processes").iterdir())


def test_a_run_that_ended_well_after_it_was_listed_is_not_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "processes" / "ended"
    lock.parent.mkdir()
    lock.touch()
    listed = DagsterRun("train", status=DagsterRunStatus.STARTED, tags={PROCESS_TAG: lock.name})
    with open_instance(tmp_path, managed=True) as instance:
        instance.add_run(listed.with_status(DagsterRunStatus.SUCCESS))
        monkeypatch.setattr(instance, "get_runs", lambda filters: [listed])
        fail_runs_of_dead_processes(instance)
        monkeypatch.undo()
        (found,) = instance.get_runs()
    assert found.status == DagsterRunStatus.SUCCESS
    assert not lock.exists()


def test_a_run_of_a_killed_process_fails_and_its_lock_goes_as_that_of_a_stopped_one(
    tmp_path: Path,
) -> None:
    killed = DagsterRun("train", status=DagsterRunStatus.STARTED, tags={PROCESS_TAG: "killed"})
    with open_instance(tmp_path, managed=True) as instance:
        with pytest.raises(KeyboardInterrupt), living(instance):
            raise KeyboardInterrupt
        (tmp_path / "processes" / "killed").touch()
        instance.add_run(killed)
        fail_runs_of_dead_processes(instance)
        (found,) = instance.get_runs()
    assert found.status == DagsterRunStatus.FAILURE
    assert not list((tmp_path / "processes").iterdir())


def test_a_tag_that_names_another_file_leaves_that_file_as_it_is(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("kept")
    run = DagsterRun("train", status=DagsterRunStatus.STARTED, tags={PROCESS_TAG: "../kept"})
    with open_instance(tmp_path, managed=True) as instance:
        instance.add_run(run)
        (tmp_path / "processes").mkdir(exist_ok=True)
        fail_runs_of_dead_processes(instance)
        (found,) = instance.get_runs()
    assert found.status == DagsterRunStatus.STARTED
    assert kept.read_text() == "kept"
