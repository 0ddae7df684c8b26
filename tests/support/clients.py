"""A client that asks by live's name all the time, and what answered it."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

from lora_assets.errors import LoraAssetsError
from lora_assets.gates.smoke import PROMPTS
from lora_assets.records.slots import LIVE_SLOT
from lora_assets.serving.replicas import same_logprobs
from tests.support.replicas import Stack

PAUSE_S = 0.1


@contextmanager
def asking(stack: Stack) -> Iterator[Counter[str]]:
    """Ask every ready replica in turn, and count its answers by the digest that gave them."""
    answers: Counter[str] = Counter()
    done = Event()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(_ask, stack, done, answers)
        try:
            yield answers
        finally:
            done.set()
    asked.result()


def _ask(stack: Stack, done: Event, answers: Counter[str]) -> None:
    while not done.wait(PAUSE_S):
        for replica in stack.replicas().members:
            try:
                logprobs = replica.complete(LIVE_SLOT, PROMPTS[0], 16).logprobs
            except LoraAssetsError as error:
                # One that is down or restarts answers nobody; one that doesn't know live, wrongly.
                if "with 404" not in error.cause:
                    continue
                logprobs = ()
            gave = [
                k
                for k in stack.adapters
                if same_logprobs(stack.fresh[k.name][0].logprobs, logprobs)
            ]
            answers[gave[0].digest if gave else "another"] += 1
