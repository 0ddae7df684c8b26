"""transformers' Trainer, made to repeat itself exactly and to refuse losses that aren't finite."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from lora_assets.errors import LoraAssetsError
from lora_assets.records.training import LossPoint, TrainingParameters
from lora_assets.training import checkpoints
from lora_assets.training.rows import EncodedRow, collate, eval_batches, plan_batches

CURVE_POINTS = 50
"""About how many values of the training loss a run reports."""


class AdapterTrainer(Trainer):  # type: ignore[misc]
    """A Trainer whose batches are planned beforehand and whose eval loss is exact.

    To the Trainer the whole run is one pass over the planned batches, so that a resumed run
    sees the batches that it would have seen: the Trainer's own samplers draw each epoch from
    the global random state, which a resumed process doesn't have. The Trainer's own
    evaluation averages over batches; this one is a mean over all answer tokens.
    """

    def __init__(
        self,
        model: Any,
        parameters: TrainingParameters,
        work: Path,
        rows_train: Sequence[EncodedRow],
        rows_val: Sequence[EncodedRow],
        on_loss: Callable[[LossPoint], None],
        on_progress: Callable[[int, int], None],
    ) -> None:
        plan = plan_batches(
            rows_train, parameters.batch_size, parameters.num_epochs, parameters.seed
        )
        tokens = _tokens_per_update(rows_train, plan, parameters.gradient_accumulation_steps)
        rows: Any = list(rows_train)
        self._loader: DataLoader[Any] = DataLoader(rows, batch_sampler=plan, collate_fn=collate)
        self._eval_batches = eval_batches(rows_val, parameters.batch_size)
        self._report = _Report(work, tokens, parameters.evaluations, on_loss, on_progress)
        super().__init__(
            model=model,
            args=_arguments(parameters, work, updates=len(tokens)),
            callbacks=[self._report],
        )
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> Any:
        return self._loader

    def training_step(self, *inputs: Any, **options: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*inputs, **options)
        if not torch.isfinite(loss):
            raise _not_finite("training", loss.item(), self.state.global_step + 1)
        return loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Log and return `eval_loss`: nats per answer token of the whole val split."""
        loss = answer_loss(self.model, self._eval_batches, self._prepare_inputs)
        if not math.isfinite(loss):
            raise _not_finite("evaluation", loss, self.state.global_step)
        metrics = {"eval_loss": loss, **self._report.effort}
        self.log(metrics)
        # The Trainer would evaluate once more at the end.
        self.control.should_evaluate = False
        return metrics


def answer_loss(
    model: Any,
    batches: Sequence[Sequence[EncodedRow]],
    prepare: Callable[[dict[str, Any]], dict[str, Any]],
) -> float:
    """Return the mean loss over all answer tokens of the batches, in nats.

    `prepare` moves a batch to where the model is.
    """
    model.eval()
    total, tokens = 0.0, 0
    with torch.no_grad():
        for rows in batches:
            # Divided by one item, the loss is the sum over the batch's answer tokens.
            total += model(**prepare(collate(rows)), num_items_in_batch=1).loss.item()
            tokens += sum(row.answer_length for row in rows)
    return total / tokens


@dataclass(eq=False)
class _Report(TrainerCallback):  # type: ignore[misc]
    """Decides when to evaluate and save; reports losses and progress; seals checkpoints."""

    work: Path
    tokens_per_update: list[int]
    evaluations: int
    on_loss: Callable[[LossPoint], None]
    on_progress: Callable[[int, int], None]
    effort: dict[str, float] = field(
        default_factory=lambda: {"trained_tokens": 0, "trained_seconds": 0.0}
    )
    _started: float = 0.0

    @property
    def _updates(self) -> int:
        return len(self.tokens_per_update)

    def _is_stop(self, step: int) -> bool:
        parts = range(1, self.evaluations + 1)
        return step in {max(1, round(self._updates * part / self.evaluations)) for part in parts}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        for entry in state.log_history:
            if "trained_tokens" in entry:
                self.effort = {name: entry[name] for name in self.effort}
        self.on_progress(state.global_step, self._updates)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.effort["trained_seconds"] += time.perf_counter() - self._started
        self.effort["trained_tokens"] += self.tokens_per_update[state.global_step - 1]
        if self._is_stop(state.global_step):
            control.should_log = control.should_evaluate = control.should_save = True
        self.on_progress(state.global_step, self._updates)

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        for point in loss_points(state.log_history[-1]):
            self.on_loss(point)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step = state.global_step
        checkpoints.seal(checkpoints.folder(self.work, step))
        checkpoints.keep_only(self.work, {step, best(state.log_history)[0]})


def loss_points(entry: dict[str, Any]) -> list[LossPoint]:
    """Return the losses that one entry of the Trainer's log holds: one, or none."""
    names = {"loss": "train_loss", "eval_loss": "eval_loss"}
    return [
        LossPoint.model_validate({"step": entry["step"], "name": name, "value": entry[key]})
        for key, name in names.items()
        if key in entry
    ]


def best(log: Sequence[dict[str, Any]]) -> tuple[int, float]:
    """Return step and value of the lowest eval loss in the Trainer's log, the first of equals."""
    evaluations = [(entry["eval_loss"], entry["step"]) for entry in log if "eval_loss" in entry]
    loss, step = min(evaluations)
    return step, loss


def _arguments(parameters: TrainingParameters, work: Path, updates: int) -> Any:
    cuda = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=parameters.batch_size,
        gradient_accumulation_steps=parameters.gradient_accumulation_steps,
        # The planned batches hold all epochs.
        num_train_epochs=1,
        learning_rate=parameters.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=parameters.warmup_ratio,
        logging_steps=max(1, updates // CURVE_POINTS),
        logging_nan_inf_filter=False,
        eval_strategy="no",
        save_strategy="no",
        seed=parameters.seed,
        bf16=cuda,
        use_cpu=not cuda,
        activation_checkpointing=cuda,
        disable_tqdm=True,
        report_to=[],
    )


def _tokens_per_update(
    rows: Sequence[EncodedRow], plan: list[list[int]], accumulation: int
) -> list[int]:
    tokens = [sum(len(rows[i].tokens) for i in batch) for batch in plan]
    return [sum(tokens[i : i + accumulation]) for i in range(0, len(tokens), accumulation)]


def _not_finite(phase: str, loss: float, step: int) -> LoraAssetsError:
    return LoraAssetsError(
        f"The {phase} loss is {loss} at step {step}",
        "Lower the learning rate, and check the rows and the base model.",
    )
