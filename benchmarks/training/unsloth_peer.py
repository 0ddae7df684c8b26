"""Unsloth, unpacked: the faster of its two ways on these rows."""

# Unsloth changes the libraries that are imported after it.
import unsloth

# isort: split
import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from benchmarks.training.measured import Measured
from benchmarks.training.meter import Meter
from benchmarks.training.task import PARAMETERS, Task
from lora_assets.records.training import LORA_PROFILES

CUDA = torch.cuda.is_available()


def run(task: Task) -> Measured:
    """Train with Unsloth's own loader, LoRA and, where the variant says so, checkpointing."""
    checkpointing = task.variant.endswith("checkpointing")
    shape = LORA_PROFILES[task.profile]
    model, tokenizer = unsloth.FastLanguageModel.from_pretrained(
        str(task.base), max_seq_length=2048, dtype=torch.bfloat16, load_in_4bit=CUDA
    )
    model = unsloth.FastLanguageModel.get_peft_model(
        model,
        r=shape.rank,
        lora_alpha=shape.alpha,
        lora_dropout=shape.dropout,
        target_modules=list(shape.target_modules),
        bias="none",
        use_gradient_checkpointing="unsloth" if checkpointing else False,
    )
    rows = Dataset.from_list(
        [
            {
                "input_ids": list(row.tokens),
                "labels": [-100] * row.prompt_length + list(row.tokens[row.prompt_length :]),
                "completion_mask": [0] * row.prompt_length + [1] * row.answer_length,
            }
            for row in task.encoded()
        ]
    )
    arguments = SFTConfig(
        output_dir=str(task.folder),
        max_length=2048,
        per_device_train_batch_size=PARAMETERS.batch_size,
        gradient_accumulation_steps=PARAMETERS.gradient_accumulation_steps,
        num_train_epochs=1,
        learning_rate=PARAMETERS.learning_rate,
        bf16=CUDA,
        completion_only_loss=True,
        save_strategy="no",
        report_to=[],
        logging_steps=1,
        disable_tqdm=True,
    )
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    trainer = SFTTrainer(
        model=model, args=arguments, train_dataset=rows, processing_class=tokenizer
    )
    return Meter(trainer).train("unsloth", "trl", "torch", "transformers")
