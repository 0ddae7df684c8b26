"""Tokens and time of every update of a transformers Trainer."""

import time
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.training.measured import Measured, Moment, measured, steady_rate


class Meter(TrainerCallback):  # type: ignore[misc]
    """Counts what a Trainer trains; padding is what the attention mask leaves out."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._tokens: Any = 0
        self._moments: list[Moment] = []
        step = trainer.training_step

        def counted(model: Any, inputs: Any, *rest: Any, **options: Any) -> Any:
            mask = inputs.get("attention_mask")
            self._tokens += inputs["input_ids"].numel() if mask is None else mask.sum()
            return step(model, inputs, *rest, **options)

        trainer.training_step = counted
        trainer.add_callback(self)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._moments.append(Moment(int(self._tokens), time.perf_counter()))

    def train(self, *packages: str) -> Measured:
        """Let the Trainer train, and return what was measured."""
        self._trainer.train()
        losses = [entry["loss"] for entry in self._trainer.state.log_history if "loss" in entry]
        return measured(steady_rate(self._moments), len(self._moments), losses, *packages)
