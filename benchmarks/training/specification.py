"""The specification's settings: a Trainer, padded batches of 4 x 4, checkpointing, 8-bit AdamW."""

from typing import Any

import torch
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Trainer, TrainingArguments

from benchmarks.training.measured import Measured
from benchmarks.training.meter import Meter
from benchmarks.training.task import PARAMETERS, Task
from lora_assets.records.training import LORA_PROFILES, Profile
from lora_assets.training.rows import EncodedRow

CUDA = torch.cuda.is_available()
# Paged 8-bit AdamW is CUDA's.
OPTIMIZER = "paged_adamw_8bit" if CUDA else "adamw_torch"


def nf4_base(task: Task) -> Any:
    """Return the base in NF4, computing in bf16 on a GPU and in fp32 on a CPU."""
    dtype = torch.bfloat16 if CUDA else torch.float32
    return AutoModelForCausalLM.from_pretrained(
        task.base,
        dtype=dtype,
        device_map={"": 0 if CUDA else "cpu"},
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        ),
    )


def lora(profile: Profile) -> Any:
    """Return the profile as peft has it."""
    shape = LORA_PROFILES[profile]
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=shape.rank,
        lora_alpha=shape.alpha,
        lora_dropout=shape.dropout,
        target_modules=list(shape.target_modules),
    )


def labelled(row: EncodedRow) -> dict[str, list[int]]:
    """Return a row's tokens and labels, of which the answer's count."""
    prompt = row.prompt_length
    return {
        "input_ids": list(row.tokens),
        "labels": [-100] * prompt + list(row.tokens[prompt:]),
    }


def padded(rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Return a batch as wide as its longest row."""
    width = max(len(row["input_ids"]) for row in rows)

    def batch(lists: list[list[int]], filler: int) -> torch.Tensor:
        return torch.tensor([values + [filler] * (width - len(values)) for values in lists])

    return {
        "input_ids": batch([row["input_ids"] for row in rows], 0),
        "attention_mask": batch([[1] * len(row["input_ids"]) for row in rows], 0),
        "labels": batch([row["labels"] for row in rows], -100),
    }


def run(task: Task) -> Measured:
    """Train with the settings of the specification's script."""
    model = prepare_model_for_kbit_training(nf4_base(task), use_gradient_checkpointing=True)
    # Trainer renamed the argument in transformers 5.2x.
    renamed = "activation_checkpointing" in TrainingArguments.__dataclass_fields__
    arguments = TrainingArguments(
        output_dir=str(task.folder),
        per_device_train_batch_size=PARAMETERS.batch_size,
        gradient_accumulation_steps=PARAMETERS.gradient_accumulation_steps,
        num_train_epochs=1,
        learning_rate=PARAMETERS.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=2,
        weight_decay=0.01,
        optim=OPTIMIZER,
        bf16=CUDA,
        use_cpu=not CUDA,
        save_strategy="no",
        report_to=[],
        logging_steps=1,
        dataloader_num_workers=4,
        remove_unused_columns=False,
        disable_tqdm=True,
        **{"activation_checkpointing" if renamed else "gradient_checkpointing": True},
    )
    trainer = Trainer(
        model=get_peft_model(model, lora(task.profile)),
        args=arguments,
        train_dataset=[labelled(row) for row in task.encoded()],
        data_collator=padded,
    )
    return Meter(trainer).train("torch", "transformers", "peft", "bitsandbytes")
