"""ask: a question to live, and to the candidate, in the prompt that training uses."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from lora_assets.cli.result import json_option, print_json, wants_json
from lora_assets.cli.stack import Stack, stack_options
from lora_assets.errors import LoraAssetsError
from lora_assets.records.dataset import prompt_like
from lora_assets.records.model_version import ModelVersion
from lora_assets.serving.replica import Completion

MAX_TOKENS = 256
"""Of an answer; as many as an evaluation takes."""


@click.command()
@click.argument("question")
@click.option(
    "--context",
    "context_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Text file that the answer is to come from  [default: none]",
)
@json_option
@click.option("--compare", is_flag=True, help="Ask the staged candidate too")
@stack_options(
    *("model_name", "mlflow_tracking_uri", "vllm_url", "deployment", "namespace"), "s3_data_bucket"
)
def ask(question: str, context_file: Path | None, compare: bool, **options: Any) -> None:
    """Ask live a QUESTION, and print its answer.

    The prompt has the form of those that live was trained on.
    """
    stack = Stack(options)
    context = _text(str(context_file), context_file.read_bytes()) if context_file else ""
    question = _text("The question", os.fsencode(question))
    live = stack.known_registry().current_live()
    if live is None:
        raise LoraAssetsError("Nothing is live yet", "Promote an adapter first.")
    asked = {stack.resources.fleet.live_slot: live}
    if compare:
        slot = stack.resources.fleet.candidate_slot
        asked[slot] = stack.resources.registry.resolve("alias:staged")
    replica = stack.resources.fleet.discover().members[0]
    answers = []
    for slot, version in asked.items():
        prompt = _prompt(stack, version, context, question)
        answer = replica.complete(slot, prompt, MAX_TOKENS)
        answers.append(_of(slot, version, answer))
        if wants_json():
            continue
        about = f"{slot} (version {version.version}, data version {version.data_version})"
        click.echo(f"{about}, {answer.latency:.1f} s:", err=not compare)
        click.echo(answer.text.strip())
    print_json(answers)


def _of(slot: str, version: ModelVersion, answer: Completion) -> Mapping[str, Any]:
    return {
        "slot": slot,
        "version": version.version,
        "data_version": version.data_version,
        "seconds": answer.latency,
        "answer": answer.text.strip(),
    }


def _text(what: str, given: bytes) -> str:
    try:
        return given.decode().strip()
    except UnicodeDecodeError:
        raise LoraAssetsError(f"{what} is not text in UTF-8", "Convert it first.") from None


def _prompt(stack: Stack, version: ModelVersion, context: str, question: str) -> str:
    """Return the question in the form of the prompts that a version was trained on."""
    bucket, tracking = stack.resources.data_bucket, stack.resources.registry.tracking
    if version.data_digest:
        source = tracking.data_source(version.run_id)
        splits = bucket.read_unchanged(version.data_version, version.data_digest, source, ["eval"])
    else:
        _, splits = bucket.read(version.data_version, ["eval"])
    prompt = prompt_like(splits["eval"][0], context, question)
    if prompt is None:
        raise LoraAssetsError(
            f"The prompts of data version {version.data_version} don't have context and question "
            "word for word, so they cannot serve as a template for a question",
            "Send a whole prompt to /v1/completions.",
        )
    return prompt
