"""A client that asks by live's name all the time, and what answered it."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from lora_assets.errors import LoraAssetsError
from lora_assets.gates.smoke import PROMPTS
from lora_assets.records.served import LIVE_SLOT
from lora_assets.serving.replicas import same_logprobs
from tests.support.dagster_services import meanwhile
from tests.support.replicas import Stack

PAUSE_S = 0.1


@contextmanager
def asking(stack: Stack) -> Iterator[Counter[str]]:
    """Ask every ready replica in turn, and count its answers by the digest that gave them."""
    answers: Counter[str] = Counter()
    with meanwhile(partial(_ask, stack, answers), PAUSE_S):
        yield answers


def _ask(stack: Stack, answers: Counter[str]) -> None:
    for replica in stack.replicas().members:
        try:
            logprobs = replica.complete(LIVE_SLOT, PROMPTS[0], 16).logprobs
        except LoraAssetsError as error:
            # One that is down or restarts answers nobody; one that doesn't know live, wrongly.
            if "with 404" not in error.cause:
                continue
            logprobs = ()
        gave = [
            k for k in stack.adapters if same_logprobs(stack.fresh[k.name][0].logprobs, logprobs)
        ]
        answers[gave[0].digest if gave else "another"] += 1
