"""The loss of an adapter that is there already, measured as training measures its own."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from peft import PeftModel

from lora_assets.errors import LoraAssetsError
from lora_assets.records.dataset import Row
from lora_assets.records.training import Losses, TrainingParameters, perplexity
from lora_assets.serving import adapter_files
from lora_assets.training.adapter_trainer import answer_losses
from lora_assets.training.base_answers import base_answers
from lora_assets.training.gpu_errors import gpu_errors_in_a_line
from lora_assets.training.qlora import device, load_base, load_tokenizer
from lora_assets.training.rows import encode_split
from lora_assets.training.token_budget import TokenBudget


@gpu_errors_in_a_line()
def measure(
    rows_val: Sequence[Row],
    base_model: Path | str,
    adapter: Path,
    parameters: TrainingParameters,
    on_note: Callable[[str], None],
) -> Losses:
    """Return the adapter's loss on the val split, over the base model as training has it.

    `on_note` is told, in a line, where memory ended and smaller passes go on.
    Raise LoraAssetsError for an adapter of another base model, and for a loss that isn't finite.
    """
    tokenizer = load_tokenizer(base_model)
    encoded, left_out = encode_split("val", rows_val, tokenizer, parameters.max_seq_length)
    base = load_base(base_model, parameters)
    linear = {
        name: (module.out_features, module.in_features)
        for name, module in base.named_modules()
        if hasattr(module, "out_features")
    }
    for name, shape in adapter_files.inspect(adapter).modules.items():
        if linear.get(name) != shape:
            raise LoraAssetsError(
                f"The adapter changes {name} of {shape}, which is {linear.get(name, 'not there')} "
                f"in base model {base_model}",
                "Register an adapter of this base model.",
            )
    answers = base_answers(base, tokenizer)
    model = PeftModel.from_pretrained(base, str(adapter))
    budget = TokenBudget(model, max(len(row.tokens) for row in encoded), on_note)
    target = device()
    # As the Trainer does with its bf16 option.
    with torch.autocast(target.type, torch.bfloat16, enabled=target.type == "cuda"):
        total = budget.within(lambda tokens: answer_losses(model, encoded, tokens))
    loss = total / sum(row.answer_length for row in encoded)
    if not math.isfinite(loss):
        raise LoraAssetsError(
            f"The adapter's loss on the val split is {loss}",
            "Check the adapter, the rows and the base model.",
        )
    return Losses(
        final_eval_loss=loss,
        final_perplexity=perplexity(loss),
        rows_left_out={"val": left_out},
        split_rows={"val": len(rows_val)},
        base_answers=answers,
    )
