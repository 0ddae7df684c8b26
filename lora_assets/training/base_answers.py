"""What a base model answers to the fixed prompts by which it is known again."""

from typing import Any

import torch

from lora_assets.records.base_model import PROMPTS, NextToken, bare


@torch.no_grad()
def base_answers(model: Any, tokenizer: Any) -> tuple[NextToken, ...]:
    """Return the likeliest token after each of PROMPTS; a LoRA that is still fresh adds nothing."""
    model.eval()
    found = []
    for prompt in PROMPTS:
        tokens = torch.tensor([tokenizer(prompt)["input_ids"]], device=model.device)
        logits = model(input_ids=tokens, use_cache=False).logits[0, -1]
        logprob, token = logits.float().log_softmax(dim=-1).max(dim=-1)
        text = tokenizer.decode([int(token)], skip_special_tokens=True)
        # Rounded, it is the same on any number of threads.
        found.append(NextToken(text=bare(text), logprob=round(float(logprob), 4)))
    return tuple(found)
