"""transformers' Trainer, made to repeat itself exactly and to refuse losses that aren't finite."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.utils import is_liger_kernel_available

from lora_assets.errors import LoraAssetsError
from lora_assets.records.training import Listeners, LossPoint, TrainingParameters, TrainingProgress
from lora_assets.training import checkpoints
from lora_assets.training.packing import model_inputs, pack
from lora_assets.training.rows import EncodedRow, plan_updates
from lora_assets.training.token_budget import TokenBudget

CURVE_POINTS = 50
"""About how many values of the training loss a run reports."""


class AdapterTrainer(Trainer):  # type: ignore[misc]
    """A Trainer whose updates are planned beforehand, and passes over packed rows.

    To the Trainer the whole run is one pass over the planned updates, so that a resumed run
    sees the rows that it would have seen: the Trainer's own samplers draw each epoch from
    the global random state, which a resumed process doesn't have. How the rows of an update
    are laid into passes is `budget`'s affair and does not change its loss: the mean over all
    its answer tokens, in nats.
    """

    def __init__(
        self,
        model: Any,
        parameters: TrainingParameters,
        work: Path,
        rows_train: Sequence[EncodedRow],
        rows_val: Sequence[EncodedRow],
        budget: TokenBudget,
        told: Listeners,
    ) -> None:
        plan = plan_updates(
            rows_train,
            parameters.batch_size,
            parameters.gradient_accumulation_steps,
            parameters.num_epochs,
            parameters.seed,
        )
        rows: Any = list(rows_train)
        self._loader: DataLoader[Any] = DataLoader(rows, batch_sampler=plan, collate_fn=list)
        self._rows_val, self._budget = rows_val, budget
        tokens = [sum(len(rows_train[index].tokens) for index in update) for update in plan]
        self._report = _Report(work, tokens, parameters.evaluations, told)
        super().__init__(
            model=model,
            args=_arguments(parameters, work, updates=len(plan)),
            callbacks=[self._report],
        )
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> Any:
        return self._loader

    def training_step(
        self, model: Any, rows: Sequence[EncodedRow], num_items_in_batch: None = None
    ) -> torch.Tensor:
        """Leave the gradient of the rows' loss in the model; return the loss."""
        model.train()
        own = self._share(rows)
        if own and not self._budget.measured:
            self._budget.measure(own, self._only_cost)
        answers = sum(row.answer_length for row in rows)
        loss = self._budget.within(lambda tokens: self._backward(own, answers, tokens))
        return self._over_all(loss)

    def _share(self, rows: Sequence[EncodedRow]) -> Sequence[EncodedRow]:
        """Return this process's rows: all of them, where it is the only one."""
        longest_first = sorted(rows, key=lambda row: -len(row.tokens))
        return longest_first[self.args.process_index :: self.args.world_size]

    def _over_all(self, loss: torch.Tensor) -> torch.Tensor:
        """Return the sum of the processes' shares of a loss; sum their gradients, too.

        Not by the wrapper around a model of several processes: there the passes of all would
        have to be alike, but each process has its own memory, and may run out of it.
        """
        if self.args.world_size > 1:
            for weight in self.model.parameters():
                if weight.requires_grad:
                    if weight.grad is None:
                        weight.grad = torch.zeros_like(weight)
                    distributed.all_reduce(weight.grad)
            distributed.all_reduce(loss)
        return loss

    def _backward(self, rows: Sequence[EncodedRow], answers: int, tokens: int) -> torch.Tensor:
        total = torch.zeros((), device=self.model.device)
        for part in pack(rows, tokens):
            loss = summed_loss(self.model, part) / answers
            self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def _only_cost(self, rows: Sequence[EncodedRow]) -> None:
        gpus = [self.model.device] if self.model.device.type == "cuda" else []
        try:
            # The pass that measures draws dropout, which the run is to draw as if it had not been.
            with torch.random.fork_rng(gpus):
                self._backward(rows, 1, sum(len(row.tokens) for row in rows))
        finally:
            # Also where memory ended halfway: no update may begin with what is left of this.
            self.model.zero_grad()

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Log and return `eval_loss`: nats per answer token of the whole val split."""
        own = self._share(self._rows_val)
        total = self._budget.within(lambda tokens: answer_losses(self.model, own, tokens))
        if self.args.world_size > 1:
            shared = torch.tensor(total, dtype=torch.double, device=self.model.device)
            distributed.all_reduce(shared)
            total = shared.item()
        loss = total / sum(row.answer_length for row in self._rows_val)
        if not math.isfinite(loss):
            raise _not_finite("evaluation", loss, self.state.global_step)
        metrics = {"eval_loss": loss, **self._report.effort(self.state.global_step)}
        self.log(metrics)
        # The Trainer would evaluate once more at the end.
        self.control.should_evaluate = False
        return metrics


def summed_loss(model: Any, rows: Sequence[EncodedRow]) -> torch.Tensor:
    """Return the loss summed over the answer tokens of packed rows, in nats."""
    inputs, targets = model_inputs(rows, model.device)
    return cross_entropy(model(**inputs).logits[0].float(), targets, reduction="sum")


@torch.no_grad()
def answer_losses(model: Any, rows: Sequence[EncodedRow], tokens: int) -> float:
    """Return the loss summed over all answer tokens, in nats, in passes of at most `tokens`."""
    model.eval()
    return sum((summed_loss(model, part).item() for part in pack(rows, tokens)), 0.0)


@dataclass(eq=False)
class _Report(TrainerCallback):  # type: ignore[misc]
    """Decides when to evaluate and save; reports losses and progress; seals checkpoints."""

    work: Path
    tokens_per_update: list[int]
    evaluations: int
    told: Listeners
    _loss: float | None = None
    _seconds: float = 0.0
    _started: float = 0.0

    def __post_init__(self) -> None:
        self._tokens_at = [0, *accumulate(self.tokens_per_update)]
        self._updates = updates = len(self.tokens_per_update)
        parts = range(1, self.evaluations + 1)
        self._stops = {max(1, round(updates * part / self.evaluations)) for part in parts}

    def effort(self, step: int) -> dict[str, float]:
        """Return what was trained, evaluations apart, for the log that a resumed run reads."""
        return {"trained_tokens": self._tokens_at[step], "trained_seconds": self._seconds}

    def _tell(self, step: int) -> None:
        done, total = self._tokens_at[step], self._tokens_at[-1]
        self.told.progress(TrainingProgress(step, self._updates, done, total, self._loss))

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        for entry in state.log_history:
            self._seconds = entry.get("trained_seconds", self._seconds)
        self._started = time.perf_counter()
        self._tell(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step in self._stops:
            if torch.cuda.is_available():
                # What is queued there is training, not the evaluation that would wait for it.
                torch.cuda.synchronize()
            self._seconds += time.perf_counter() - self._started
            control.should_log = control.should_evaluate = control.should_save = True
        self._tell(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        for point in loss_points(entry := state.log_history[-1]):
            if not math.isfinite(entry.get("loss", 0.0)):
                raise _not_finite("training", entry["loss"], point.step)
            if point.name == "train_loss":
                self._loss = point.value
            self.told.loss(point)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step = state.global_step
        if args.world_size > 1:
            # Each process adds the state of its random numbers to the checkpoint.
            distributed.barrier()
        if state.is_world_process_zero:
            checkpoints.seal(checkpoints.folder(self.work, step))
            checkpoints.keep_only(self.work, {step, best(state.log_history)[0]})
        self._started = time.perf_counter()


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


def liger_kernels() -> bool:
    """Return whether Liger's fused kernels are there, and a GPU to run them."""
    return torch.cuda.is_available() and bool(is_liger_kernel_available())


def _arguments(parameters: TrainingParameters, work: Path, updates: int) -> Any:
    cuda = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(work),
        # The planned updates hold all epochs.
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
        # Not the loss: it is taken of the answers' logits alone.
        use_liger_kernel=liger_kernels(),
        liger_kernel_config={"cross_entropy": False, "fused_linear_cross_entropy": False},
        disable_tqdm=True,
        report_to=[],
    )


def _not_finite(phase: str, loss: float, step: int) -> LoraAssetsError:
    return LoraAssetsError(
        f"The {phase} loss is {loss} at step {step}",
        "Lower the learning rate, and check the rows and the base model.",
    )
