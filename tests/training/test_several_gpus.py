"""Several processes train as one does. On CPUs: no machine of the tests has several GPUs."""

import multiprocessing
import os
import signal
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest
from torch import distributed

from lora_assets.errors import LoraAssetsError
from lora_assets.records.dataset import Row
from lora_assets.records.training import Listeners, LossPoint, TrainingParameters, TrainingProgress
from lora_assets.serving.adapter_files import inspect
from lora_assets.training.several_gpus import Job, train_in_processes
from lora_assets.training.train import train

SMALL = {"batch_size": 2, "gradient_accumulation_steps": 1, "evaluations": 2}
PARAMETERS = TrainingParameters(
    learning_rate=0.01, max_seq_length=256, quantization="none", **SMALL
)


def job(folder: Path, base_model: Path, rows_val: list[Row], rows: list[Row]) -> Job:
    # The last update has one row, which one of two processes doesn't have.
    work, adapter = folder / "work", folder / "adapter"
    return partial(train, rows[:7], rows_val, base_model, "tiny", PARAMETERS, work, adapter)


def nothing(told: object) -> None:
    pass


SILENT = Listeners(nothing, nothing, nothing)


def test_two_processes_make_the_updates_of_one(
    tmp_path: Path, tiny_model: Path, rows: list[Row]
) -> None:
    val = rows[24:]
    alone = job(tmp_path / "alone", tiny_model, val, rows)(SILENT)
    heard: list[LossPoint] = []
    progress: list[TrainingProgress] = []
    shared = job(tmp_path / "both", tiny_model, val, rows)
    both = train_in_processes(2, shared, Listeners(heard.append, progress.append, nothing))
    assert tuple(heard) == both.curve
    assert [(p.step, p.name) for p in both.curve] == [(p.step, p.name) for p in alone.curve]
    assert [done.step for done in progress] == list(range(both.steps + 1))
    # A fresh LoRA adds nothing, so that dropout, which differs, does not change the first loss.
    assert both.curve[0].value == pytest.approx(alone.curve[0].value, rel=1e-5)
    assert both.final_eval_loss == pytest.approx(alone.final_eval_loss, rel=0.02)
    assert inspect(tmp_path / "both" / "adapter").base_model == "tiny"
    assert list((tmp_path / "both" / "work").iterdir()) == []


def waiting(there: Connection, *_: object, **__: object) -> None:
    """Tell this process's number; wait for a process that never comes, as for gradients."""
    distributed.init_process_group("gloo")
    there.send(os.getpid())
    while distributed.get_rank():
        signal.pause()
    distributed.barrier()


def test_the_processes_end_with_a_parent_that_is_killed() -> None:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    stuck = (2, partial(waiting, there), SILENT)
    parent = context.Process(target=train_in_processes, args=stuck)
    parent.start()
    there.close()
    processes = [psutil.Process(here.recv()) for _ in range(2)]
    parent.kill()
    assert psutil.wait_procs(processes, timeout=60)[1] == []


def test_what_a_process_refuses_is_refused_by_all(
    tmp_path: Path, tiny_model: Path, rows: list[Row]
) -> None:
    asked = job(tmp_path, tiny_model, [], rows)
    with pytest.raises(LoraAssetsError, match="The val split has no rows"):
        train_in_processes(2, asked, SILENT)
