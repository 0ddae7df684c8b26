"""One training run, from rows to an adapter folder; a killed run goes on when run again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed

from lora_assets.records.dataset import Row
from lora_assets.records.training import (
    Engine,
    Listeners,
    TrainingMetrics,
    TrainingParameters,
    perplexity,
)
from lora_assets.training import checkpoints
from lora_assets.training.adapter_trainer import AdapterTrainer, best, liger_kernels, loss_points
from lora_assets.training.attention import attention
from lora_assets.training.base_answers import base_answers
from lora_assets.training.gpu_errors import gpu_errors_in_a_line
from lora_assets.training.qlora import load_model, load_tokenizer
from lora_assets.training.rows import encode_split, lengths
from lora_assets.training.token_budget import TokenBudget


@gpu_errors_in_a_line()
def train(
    rows_train: Sequence[Row],
    rows_val: Sequence[Row],
    base_model: Path | str,
    base_model_name: str,
    parameters: TrainingParameters,
    work: Path,
    output: Path,
    told: Listeners,
) -> TrainingMetrics:
    """Train a LoRA on the base model and leave its best checkpoint in `output`.

    `work` holds the checkpoints and must belong to these rows, parameters and base model
    alone: a run resumes from a complete checkpoint there. They are removed on success.
    `output` becomes a folder of adapter_config.json, which names `base_model_name`, and
    adapter_model.safetensors; one that exists is replaced.

    A listener that raises ends the run, which can be resumed.

    On a CPU the same inputs and number of threads give the same bytes; a GPU adds up gradients in
    no fixed order. Raise LoraAssetsError for rows, parameters or a base model that can't be trained
    with, for a loss that isn't finite, and for a full disk; `output` is not touched then.
    """
    tokenizer = load_tokenizer(base_model)
    limit = parameters.max_seq_length
    encoded_train, train_left_out = encode_split("train", rows_train, tokenizer, limit)
    encoded_val, val_left_out = encode_split("val", rows_val, tokenizer, limit)
    set_seed(parameters.seed)
    model = load_model(base_model, parameters)
    answers = base_answers(model, tokenizer)
    longest = max(len(row.tokens) for row in (*encoded_train, *encoded_val))
    budget = TokenBudget(model, longest, told.note)
    how = _engine(model, budget)
    told.note(f"training on {how.device}: attention {how.attention}, kernels of {how.kernels}")
    trainer = AdapterTrainer(model, parameters, work, encoded_train, encoded_val, budget, told)
    with trainer.accelerator.main_process_first():
        resume_from = checkpoints.newest_complete(work)
    with checkpoints.disk_full_as_error(work):
        trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
        log = trainer.state.log_history
        step, loss = best(log)
        if trainer.is_world_process_zero():
            checkpoints.publish(checkpoints.folder(work, step), output, base_model_name)
    if trainer.is_world_process_zero():
        checkpoints.keep_only(work, set())
    effort = next(entry for entry in reversed(log) if "trained_tokens" in entry)
    return TrainingMetrics(
        final_eval_loss=loss,
        final_perplexity=perplexity(loss),
        tokens_per_second=effort["trained_tokens"] / effort["trained_seconds"],
        engine=_engine(model, budget),
        steps=trainer.state.global_step,
        best_step=step,
        rows_left_out={"train": train_left_out, "val": val_left_out},
        split_rows={"train": len(rows_train), "val": len(rows_val)},
        row_lengths={"train": lengths(encoded_train), "val": lengths(encoded_val)},
        curve=tuple(point for entry in log for point in loss_points(entry)),
        base_answers=answers,
    )


def _engine(model: Any, budget: TokenBudget) -> Engine:
    """Return what the machine had and how it was used; to be asked after a run for its peak."""
    on_gpu = model.device.type == "cuda"
    return Engine(
        device=torch.cuda.get_device_name() if on_gpu else "cpu",
        attention=attention(model.device),
        kernels="liger" if liger_kernels() else "torch",
        tokens_per_pass=budget.tokens,
        activations_recomputed=budget.checkpointing,
        peak_memory_gib=torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
    )
