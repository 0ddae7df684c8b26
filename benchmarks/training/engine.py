"""The variants of this project's engine."""

import time
from inspect import signature
from typing import Any

import torch

from benchmarks.training.measured import Measured, Moment, measured, steady_rate
from benchmarks.training.task import PARAMETERS, Task, make_rows
from lora_assets.records.training import LossPoint
from lora_assets.training.train import train

CAP = 24 << 30
"""Bytes of a card of 24 GB."""


def run(task: Task) -> Measured:
    """Train by the engine; its own rate is beside the one that is measured here.

    The engine says how many updates are done, not how many tokens: the share of the updates
    stands for the share of the tokens.
    """
    if task.variant.endswith("24gb") and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, CAP / total))
    tokens = sum(len(row.tokens) for row in task.encoded())
    moments: list[Moment] = []
    losses: list[LossPoint] = []
    notes: list[str] = []

    def on_progress(done: int, total: int) -> None:
        if done:
            moments.append(Moment(tokens * done / total, time.perf_counter()))

    options: dict[str, Any] = {}
    if "on_note" in signature(train).parameters:
        options["on_note"] = notes.append
    metrics = train(
        task.train_rows(),
        make_rows(16, seed=2),
        task.base,
        "base",
        PARAMETERS.model_copy(update={"lora_config": task.profile, "evaluations": 1}),
        task.folder / "work",
        task.folder / "adapter",
        losses.append,
        on_progress,
        **options,
    )
    trained = [point.value for point in losses if point.name == "train_loss"]
    found = measured(steady_rate(moments), len(moments), trained, "torch", "transformers", "peft")
    return found.model_copy(update={"own_rate": metrics.tokens_per_second, "notes": tuple(notes)})
