"""How the embedded stack's base model is made: `python -m lora_assets.embedded.recipe.make`.

A small Mistral-architecture model, trained from nothing on the AWS documentation in two
stages (see `lora_assets.embedded.recipe.lookups`), measured on services that it never saw.
The recipe is that of `lora_assets/embedded/base_model/README.md`; where that is silent (the exact
wordings of the look-ups, warm-up of 100 steps, weight decay 0.01, the seed) the values are
this script's own.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
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

from lora_assets.embedded.recipe.lookups import (
    FIRST,
    SECOND,
    LookupSource,
    services_for_training,
    services_held_out,
)
from lora_assets.embedded.recipe.pretraining import encode, train

SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<pad>", "[INST]", "[/INST]")
VOCABULARY = 2048
# Two to four lines of any services, the plainest wording, always answerable.
MEASURED = replace(SECOND, lines=(2, 4), wordings=1, varied=False, one_service=0.0, absent=0.0)
LOOKUPS_FOR_LOSS, LOOKUPS_ANSWERED = 200, 50


def train_tokenizer(texts: Iterator[str]) -> PreTrainedTokenizerBase:
    """Byte-level BPE of 2,048 tokens that splits camel case and opens a text with <s>."""
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
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
    )


def new_model() -> MistralForCausalLM:
    """An untrained model of 2.9 M parameters: 4 layers, hidden size 256, 4 heads of 64."""
    return MistralForCausalLM(
        MistralConfig(
            vocab_size=VOCABULARY,
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=64,
            max_position_embeddings=1024,
            sliding_window=None,
            tie_word_embeddings=True,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=3,
        )
    )


@dataclass(frozen=True)
class Measured:
    """Look-up on held-out services: mean loss per answer token (nats), exact greedy answers."""

    answer_loss: float
    exact: int
    answered: int

    def __str__(self) -> str:
        return (
            f"held-out look-up: answer loss {self.answer_loss:.4f} per token, "
            f"{self.exact} of {self.answered} answers exact"
        )


@torch.no_grad()
def measure(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Measured:
    """Ask the model about the services that its training never saw."""
    model.eval()
    source, rng = LookupSource(services_held_out()), random.Random("measured")
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
    return Measured(total / tokens, exact, LOOKUPS_ANSWERED)


@click.command()
@click.option("--output", type=click.Path(path_type=Path), help="Folder to write the model to")
@click.option("--steps-1", default=FIRST.steps, show_default=True, help="Steps of stage one")
@click.option("--steps-2", default=SECOND.steps, show_default=True, help="Steps of stage two")
@click.option("--threads", type=int, help="CPU threads [default: every core]")
@click.option(
    "--evaluate",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Only measure the model in this folder",
)
def main(
    output: Path | None, steps_1: int, steps_2: int, threads: int | None, evaluate: Path | None
) -> None:
    """Train the base model into --output, or measure the one in --evaluate."""
    if (output is None) == (evaluate is None):
        raise click.UsageError("Give either --output or --evaluate.")
    if threads is not None:
        torch.set_num_threads(threads)
    if output is not None:
        _make(output, steps_1, steps_2)
    folder = evaluate or output
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    click.echo(str(measure(model, AutoTokenizer.from_pretrained(folder))))
    assert folder is not None
    weights = (folder / "model.safetensors").read_bytes()
    click.echo(f"{model.num_parameters():,} parameters, {len(weights):,} bytes")
    click.echo(f"sha256 of model.safetensors {hashlib.sha256(weights).hexdigest()}")


def _make(output: Path, steps_1: int, steps_2: int) -> None:
    output.mkdir(parents=True, exist_ok=True)
    texts = (
        f"{operation.name}: {operation.sentence}"
        for group in services_for_training().values()
        for operation in group
    )
    tokenizer = train_tokenizer(texts)
    tokenizer.save_pretrained(output)
    torch.manual_seed(0)
    model = new_model().to("cuda" if torch.cuda.is_available() else "cpu")
    stages = (replace(FIRST, steps=steps_1), replace(SECOND, steps=steps_2))
    train(model, tokenizer, stages, output, lambda line: click.echo(line))
    model.to(torch.bfloat16).save_pretrained(output)


if __name__ == "__main__":
    main()
