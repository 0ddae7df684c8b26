"""The variants of this project's engine."""

import time

import torch

from benchmarks.training.measured import Measured, Moment, measured, steady_rate
from benchmarks.training.task import PARAMETERS, Task, make_rows
from lora_assets.records.training import Listeners, LossPoint, TrainingProgress
from lora_assets.training.train import train

CAP = 24 << 30
"""Bytes of a card of 24 GB."""


def run(task: Task) -> Measured:
    """Train by the engine; its own rate is beside the one that is measured here."""
    if task.variant.endswith("24gb") and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, CAP / total))
    moments: list[Moment] = []
    losses: list[LossPoint] = []
    notes: list[str] = []

    def on_progress(done: TrainingProgress) -> None:
        if done.step:
            moments.append(Moment(done.tokens, time.perf_counter()))

    metrics = train(
        task.train_rows(),
        make_rows(16, seed=2),
        task.base,
        "base",
        PARAMETERS.model_copy(update={"lora_config": task.profile, "evaluations": 1}),
        task.folder / "work",
        task.folder / "adapter",
        Listeners(losses.append, on_progress, notes.append),
    )
    trained = [point.value for point in losses if point.name == "train_loss"]
    found = measured(steady_rate(moments), len(moments), trained, "torch", "transformers", "peft")
    return found.model_copy(update={"own_rate": metrics.tokens_per_second, "notes": tuple(notes)})
