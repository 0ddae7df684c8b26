"""Make the embedded stack's base model: `python -m lora_assets.embedded.recipe.make`.

The model has Mistral's architecture. It is trained from random weights on the AWS documentation
in two stages (see `lora_assets.embedded.recipe.lookups`) and measured on services that it never
saw. The recipe is that of `lora_assets/embedded/base_model/README.md`. What that leaves open (the
wordings of the look-ups, the warm-up, the weight decay, the seed) is this script's own choice.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from lora_assets.embedded.data_set.aws_operations import operations
from lora_assets.embedded.recipe.lookups import (
    FIRST,
    HELD_OUT,
    SECOND,
    LookupSource,
    services_for_training,
)
from lora_assets.embedded.recipe.pretraining import encode, train
from lora_assets.embedded.server.options import PACKAGED_BASE_MODEL

ROLES = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
SPECIAL_TOKENS = (*ROLES.values(), "[INST]", "[/INST]")
VOCABULARY = 2048
# Two to four lines of any services, the plainest wording, always answerable.
MEASURED = replace(SECOND, lines=(2, 4), wordings=1, varied=False, one_service=0.0, absent=0.0)
LOOKUPS_FOR_LOSS, LOOKUPS_ANSWERED = 200, 50


def train_tokenizer(texts: Iterator[str]) -> PreTrainedTokenizerBase:
    """Train byte-level BPE of 2,048 tokens that splits camel case and opens a text with <s>."""
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL_TOKENS[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("(?<=[a-z])(?=[A-Z])"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", SPECIAL_TOKENS.index("<s>"))]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **ROLES)


@torch.no_grad()
def measure(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> str:
    """Ask the model about the services that its training never saw; return its figures.

    They are the mean loss per answer token (nats) and the exact greedy answers.
    """
    model.eval()
    source = LookupSource({name: operations(name) for name in HELD_OUT})
    rng = random.Random("measured")
    lookups = [source.draw(MEASURED, rng) for _ in range(LOOKUPS_FOR_LOSS)]
    total, tokens, exact = 0.0, 0, 0
    for number, lookup in enumerate(lookups):
        batch = encode([replace(lookup, whole=False)], tokenizer)
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        counted = int((batch["labels"] != -100).sum())
        total += float(model(**batch).loss) * counted
        tokens += counted
        if number < LOOKUPS_ANSWERED:
            prompt = batch["labels"][0].tolist().count(-100)
            answer = model.generate(
                input_ids=batch["input_ids"][:, :prompt],
                attention_mask=batch["attention_mask"][:, :prompt],
                max_new_tokens=96,
                do_sample=False,
            )[0, prompt:]
            exact += tokenizer.decode(answer, skip_special_tokens=True) == lookup.answer
    return (
        f"held-out look-up: answer loss {total / tokens:.4f} per token,"
        f" {exact} of {LOOKUPS_ANSWERED} answers exact"
    )


@click.command()
@click.option("--output", type=click.Path(path_type=Path), help="Folder to write the model to")
@click.option(
    "--evaluate",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Only measure the model in this folder",
)
def main(output: Path | None, evaluate: Path | None) -> None:
    """Train the base model into --output, or measure the one in --evaluate."""
    folder = evaluate or output
    if folder is None or (output and evaluate):
        raise click.UsageError("Give either --output or --evaluate.")
    if evaluate is None:
        _make(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    click.echo(measure(model, AutoTokenizer.from_pretrained(folder)))
    weights = (folder / "model.safetensors").read_bytes()
    click.echo(f"{model.num_parameters():,} parameters, {len(weights):,} bytes")
    click.echo(f"sha256 of model.safetensors {hashlib.sha256(weights).hexdigest()}")


def _make(output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    texts = (
        f"{operation.name}: {operation.sentence}"
        for group in services_for_training().values()
        for operation in group
    )
    tokenizer = train_tokenizer(texts)
    tokenizer.save_pretrained(output)
    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig.from_pretrained(PACKAGED_BASE_MODEL))
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    train(model, tokenizer, (FIRST, SECOND), output, click.echo)
    model.to(torch.bfloat16).save_pretrained(output)


if __name__ == "__main__":
    main()
