"""Train the base model through its stages, with checkpoints from which a stopped run goes on."""

import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lora_assets.embedded.recipe.lookups import Lookup, LookupSource, Stage, services_for_training
from lora_assets.errors import LoraAssetsError

BATCH = 32
WARM_UP = 100
CHECKPOINT_EVERY = 100
REPORT_EVERY = 20
CHECKPOINT = "checkpoint.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def encode(lookups: list[Lookup], tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
    """Return token ids, mask and labels: (look-ups, longest), labels -100 where no loss counts.

    The tokenizer opens each sequence with `<s>`, as it will every prompt; `</s>` ends it.
    """
    rows = []
    for lookup in lookups:
        prompt = tokenizer(lookup.prompt)["input_ids"]
        answer = tokenizer(lookup.answer, add_special_tokens=False)["input_ids"]
        answer = [*answer, tokenizer.eos_token_id]
        rows.append((prompt + answer, (prompt if lookup.whole else [-100] * len(prompt)) + answer))
    ids, labels = ([torch.tensor(row) for row in column] for column in zip(*rows, strict=True))
    return {
        "input_ids": pad_sequence(ids, True, tokenizer.pad_token_id),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], True),
        "labels": pad_sequence(labels, True, -100),
    }


def learning_rate(stage: Stage, step: int) -> float:
    """Return the rate at a step: linear warm-up, then a cosine down to zero at the stage's end."""
    warm = min(1.0, (step + 1) / min(WARM_UP, stage.steps))
    return stage.learning_rate * warm * (1 + math.cos(math.pi * step / stage.steps)) / 2


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    stages: tuple[Stage, ...],
    output: Path,
    report: Callable[[str], None],
) -> None:
    """Train through the stages, from the checkpoint in `output` on where there is one."""
    source = LookupSource(services_for_training())
    done = _restore(model, output)
    first = 0
    for number, stage in enumerate(stages, start=1):
        if done >= first + stage.steps:
            first += stage.steps
            continue
        optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.01)
        if done > first:
            _restore_moments(optimizer, model, output)
        losses: list[float] = []
        for step in range(max(0, done - first), stage.steps):
            # Drawn from the step's number alone, so that a resumed run sees the same batches.
            rng = random.Random(f"{number} {step}")
            batch = encode([source.draw(stage, rng) for _ in range(BATCH)], tokenizer)
            losses.append(_update(model, optimizer, batch, learning_rate(stage, step)))
            done = first + step + 1
            if done % REPORT_EVERY == 0:
                mean = sum(losses) / len(losses)
                report(f"stage {number} step {step + 1}/{stage.steps} loss {mean:.4f}")
                losses.clear()
            if done % CHECKPOINT_EVERY == 0 or step + 1 == stage.steps:
                _save_checkpoint(model, optimizer, done, output)
        first += stage.steps


def _update(
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    batch: Mapping[str, torch.Tensor],
    rate: float,
) -> float:
    model.train()
    for group in optimizer.param_groups:
        group["lr"] = rate
    with torch.autocast(model.device.type, dtype=torch.bfloat16):
        loss = model(**{name: tensor.to(model.device) for name, tensor in batch.items()}).loss
    if not torch.isfinite(loss):
        raise LoraAssetsError("The training loss is not finite", "Use a lower learning rate.")
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.item())


def _save_checkpoint(
    model: PreTrainedModel, optimizer: torch.optim.Optimizer, done: int, output: Path
) -> None:
    tensors = {f"weight {name}": value.data for name, value in model.named_parameters()}
    for name, value in model.named_parameters():
        for moment in _MOMENTS:
            tensors[f"{moment} {name}"] = optimizer.state[value][moment]
    tensors["done"] = torch.tensor(done)
    aside = output / f"{CHECKPOINT}.part"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, aside)
    aside.rename(output / CHECKPOINT)


def _restore(model: PreTrainedModel, output: Path) -> int:
    if not (output / CHECKPOINT).exists():
        return 0
    saved = load_file(output / CHECKPOINT)
    for name, value in model.named_parameters():
        value.data.copy_(saved[f"weight {name}"])
    return int(saved["done"])


def _restore_moments(
    optimizer: torch.optim.Optimizer, model: PreTrainedModel, output: Path
) -> None:
    saved = load_file(output / CHECKPOINT)
    for name, value in model.named_parameters():
        state = {moment: saved[f"{moment} {name}"] for moment in _MOMENTS}
        # AdamW keeps its count of steps on the CPU.
        moved = {m: t if m == "step" else t.to(value.device) for m, t in state.items()}
        optimizer.state[value] = moved
