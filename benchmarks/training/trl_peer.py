"""TRL's SFTTrainer with packing and Liger's kernels; its own kernels need CUDA."""

from datasets import Dataset
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

from benchmarks.training.measured import Measured
from benchmarks.training.meter import Meter
from benchmarks.training.specification import lora, nf4_base
from benchmarks.training.task import PARAMETERS, Task


def run(task: Task) -> Measured:
    """Train packs of 2,048 tokens, 2 x 2 an update: about the 16 rows of the others."""
    rows = Dataset.from_list(
        [
            {
                "input_ids": list(row.tokens),
                "completion_mask": [0] * row.prompt_length + [1] * row.answer_length,
            }
            for row in task.encoded()
        ]
    )
    arguments = SFTConfig(
        output_dir=str(task.folder),
        packing=True,
        packing_strategy="bfd",
        max_length=2048,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        num_train_epochs=1,
        learning_rate=PARAMETERS.learning_rate,
        bf16=True,
        gradient_checkpointing=task.variant.endswith("checkpointing"),
        use_liger_kernel=True,
        completion_only_loss=True,
        save_strategy="no",
        report_to=[],
        logging_steps=1,
        disable_tqdm=True,
    )
    tokenizer = AutoTokenizer.from_pretrained(task.base)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    trainer = SFTTrainer(
        model=nf4_base(task),
        args=arguments,
        train_dataset=rows,
        peft_config=lora(task.profile),
        processing_class=tokenizer,
    )
    return Meter(trainer).train("trl", "liger-kernel", "torch", "transformers")
