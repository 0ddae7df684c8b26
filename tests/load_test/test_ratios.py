import math
import random
from collections.abc import Sequence

import pytest

from lora_assets.gates.performance import PerfRule
from lora_assets.load_test.generator import Block, ModelLoad
from lora_assets.load_test.ratios import Alternation, change, ratios
from lora_assets.records.load import RequestSample


def answer(latency: float, ttft: float = 0.1, tokens: int = 11) -> RequestSample:
    return RequestSample(started=0, latency=latency, ttft=ttft, output_tokens=tokens, error=None)


FAILED = RequestSample(started=0, latency=None, ttft=None, output_tokens=0, error="timeout")


def blocks(count: int, slower: float = 1.0, seed: int = 1) -> Sequence[Block]:
    """Twenty requests each on a machine whose speed is another in each block."""
    rng, machine, made = random.Random(seed), random.Random(0), []
    for _ in range(count):
        speed = machine.uniform(0.5, 2.0) * slower
        samples = tuple(answer(speed * rng.uniform(0.9, 1.1), 0.1 * speed) for _ in range(20))
        made.append(Block(samples=samples, duration=5 * speed))
    return made


def test_what_both_sides_saw_of_the_machine_cancels_out() -> None:
    latency, ttft, throughput = ratios(blocks(20, 1.2), blocks(20, seed=2))
    assert latency.value == pytest.approx(1.2, abs=0.03)
    assert ttft.value == pytest.approx(1.2)
    assert throughput.value == pytest.approx(1 / 1.2)
    assert latency.error < 0.03
    assert max(ttft.error, throughput.error) < 1e-9


def test_more_blocks_make_it_surer_and_one_pair_says_nothing_of_the_error() -> None:
    one, few, many = (ratios(blocks(n), blocks(n, seed=2))[0].error for n in (1, 10, 160))
    assert many < few / 2 < one == math.inf


def test_failed_requests_have_no_latency_and_count_in_throughput() -> None:
    half = [
        block.model_copy(update={"samples": (*block.samples[:10], *[FAILED] * 10)})
        for block in blocks(20)
    ]
    assert ratios(half, blocks(20))[2].value == pytest.approx(0.5)
    dead = [*half[:-1], half[-1].model_copy(update={"samples": (FAILED,)})]
    assert ratios(dead, blocks(20)) == ()
    assert ratios(blocks(20), dead) == ()


def looked(slower: float, *, rule: str = "paired", most: int = 40) -> tuple[int, ...]:
    """After how many blocks it was looked at, where a test has ten of them."""
    turns = Alternation("new", "old", PerfRule(decision_rule=rule), most)
    ours, theirs = blocks(most, slower), blocks(most, seed=2)
    for end in range(10, most + 10, 10):
        loads = {
            name: ModelLoad(blocks=tuple(side[:end]))
            for name, side in {"new": ours, "old": theirs}.items()
        }
        if turns.enough(loads):
            break
    return turns.looks.at


def test_blocks_are_added_until_it_is_decided_or_there_are_enough() -> None:
    assert looked(1.0) == (10,)
    assert looked(2.0) == (10,)
    assert looked(1.15) == (10, 20, 30, 40)
    assert looked(1.15, rule="specification") == (10,)
    assert looked(1.15, most=19) == (10,)


def test_a_candidate_that_answers_nothing_is_decided_at_once() -> None:
    turns = Alternation("new", "old", PerfRule(decision_rule="paired"), 40)
    dead = [Block(samples=(FAILED,), duration=1.0)] * 10
    loads = {"new": ModelLoad(blocks=tuple(dead)), "old": ModelLoad(blocks=tuple(blocks(10)))}
    assert turns.enough(loads)


@pytest.mark.parametrize(
    ("candidate", "parts"),
    [
        (answer(1.1), (0.0, 0.0, 0.0)),
        (answer(1.4, 0.4), (0.3, 0.0, 0.0)),
        (answer(2.1, tokens=21), (0.0, 1.0, 0.0)),
        (answer(2.1), (0.0, 0.0, 1.0)),
        (answer(4.3, 0.3, 21), (0.2, 1.0, 2.0)),
    ],
)
def test_a_latency_is_later_first_tokens_more_tokens_and_slower_ones(
    candidate: RequestSample, parts: Sequence[float]
) -> None:
    found = change([candidate, FAILED], [answer(1.1)])
    assert (found.first_token, found.tokens, found.speed) == pytest.approx(parts)
