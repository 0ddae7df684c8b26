"""The model that is trained: a frozen base, quantised or not, with a LoRA on it."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.utils import logging

from lora_assets.errors import LoraAssetsError
from lora_assets.records.training import LORA_PROFILES, TrainingParameters
from lora_assets.serving.base_shapes import ARCHITECTURES
from lora_assets.training.attention import attention
from lora_assets.training.base_identity import name_and_revision
from lora_assets.training.gpu_errors import gpu_errors_in_a_line


def device() -> torch.device:
    """Return this process's GPU where there is one, otherwise the CPU.

    Raise LoraAssetsError for a GPU without bf16.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        raise LoraAssetsError(
            f"{torch.cuda.get_device_name()} does not compute in bf16, which training needs",
            "Use a card of NVIDIA's Ampere generation (A10G, L4, A100) or a later one.",
        )
    return torch.device("cuda", torch.cuda.current_device())


def require_architecture(base_model: Path | str) -> None:
    """Raise LoraAssetsError for a base model of an architecture that isn't trained here."""
    with _loading(base_model) as (name, revision):
        kind = AutoConfig.from_pretrained(name, revision=revision).model_type
    if kind not in ARCHITECTURES:
        raise LoraAssetsError(
            f"Base model {base_model} is a {kind} model, which is not supported",
            f"Use one of {', '.join(ARCHITECTURES)}.",
        )


def load_tokenizer(base_model: Path | str) -> Any:
    """Return the base model's tokenizer; raise LoraAssetsError without an end-of-sequence token."""
    with _loading(base_model) as (name, revision):
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
    if tokenizer.eos_token_id is None:
        raise LoraAssetsError(
            f"The tokenizer of base model {base_model} has no end-of-sequence token",
            "Use a base model whose tokenizer sets eos_token.",
        )
    return tokenizer


def load_base(base_model: Path | str, parameters: TrainingParameters) -> Any:
    """Return the frozen base model as adapters are trained on it.

    Compute is bf16 on a GPU and fp32 on the CPU. Raise LoraAssetsError when the model can't be
    loaded, or has too few positions for `max_seq_length`.
    """
    target = device()
    dtype = torch.bfloat16 if target.type == "cuda" else torch.float32
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    logging.disable_progress_bar()
    with _loading(base_model) as (name, revision):
        base = AutoModelForCausalLM.from_pretrained(
            name,
            revision=revision,
            dtype=dtype,
            device_map={"": str(target)},
            quantization_config=nf4 if parameters.quantization == "nf4" else None,
            use_safetensors=True,
            attn_implementation=attention(target),
        )
    positions = base.config.max_position_embeddings
    if parameters.max_seq_length > positions:
        raise LoraAssetsError(
            f"max-seq-length {parameters.max_seq_length} is more than the {positions} positions"
            f" of base model {base_model}",
            f"Lower max-seq-length to {positions}.",
        )
    if parameters.quantization == "nf4":
        _keep_trainable_layout(base)
    # peft's own preparation would cast norms, embeddings and head to fp32: on a GPU of no use to
    # the losses, and 13 GB of a 7B model's pass.
    base.requires_grad_(False)
    return base


def load_model(base_model: Path | str, parameters: TrainingParameters) -> Any:
    """Return the base model with a fresh LoRA of the parameters' profile, as a peft model.

    The LoRA weights are fp32. Raise LoraAssetsError as `load_base` does, and for a base model
    that lacks a projection that the profile changes.
    """
    base = load_base(base_model, parameters)
    profile = LORA_PROFILES[parameters.lora_config]
    # peft itself accepts a model that has only one of the targets.
    projections = {name.rpartition(".")[2] for name, _ in base.named_modules()}
    if missing := [name for name in profile.target_modules if name not in projections]:
        raise LoraAssetsError(
            f"Base model {base_model} has no {', '.join(missing)} for the LoRA profile to change",
            "Use a Mistral or Llama model, or another profile.",
        )
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=profile.rank,
        lora_alpha=profile.alpha,
        lora_dropout=profile.dropout,
        use_rslora=parameters.lora_method == "rslora",
        target_modules=list(profile.target_modules),
    )
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5.23 by a name that it calls deprecated.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        return get_peft_model(base, lora)


def _keep_trainable_layout(base: Any) -> None:
    # On a CPU with AVX-512 BF16, bitsandbytes 0.50 repacks a layer for good when it is first
    # evaluated. The repacked kernel computes in bf16 and has no gradient: all training after
    # the first evaluation would silently lose the gradient through the frozen weights.
    for module in base.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


@contextmanager
def _loading(base_model: Path | str) -> Iterator[tuple[str, str]]:
    """Yield name and revision to load the base model by; what fails becomes one LoraAssetsError."""
    if isinstance(base_model, Path) and not base_model.is_dir():
        raise LoraAssetsError(
            f"There is no base model folder {base_model}", "Give the folder of a base model."
        )
    try:
        with gpu_errors_in_a_line():
            yield name_and_revision(base_model)
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise LoraAssetsError(
            f"Base model {base_model} can't be loaded: {reason}",
            "Give a folder or a Hugging Face name of a causal language model in safetensors.",
        ) from error
