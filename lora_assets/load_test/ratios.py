"""Candidate against live, block by block on the same prompts: how they differ, and how surely."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev

from lora_assets.gates.performance import PerfRule, regressions
from lora_assets.load_test.generator import Block, LoadTest, ModelLoad
from lora_assets.load_test.summary import summarise
from lora_assets.records.load import LatencyChange, Measure, Ratio, RequestSample
from lora_assets.records.looks import Looks
from lora_assets.serving.bounded_client import BoundedClient

Progress = Callable[[int, int], None]


@dataclass
class Alternation:
    """Blocks of candidate and live in turn: as many as one test has, or the rule `paired` needs."""

    candidate: str
    live: str
    rule: PerfRule
    max_blocks: int
    ratios: tuple[Ratio, ...] = ()
    looks: Looks = field(default_factory=lambda: Looks(of=0))

    async def run(
        self, test: LoadTest, client: BoundedClient, progress: Callable[[], Progress]
    ) -> Mapping[str, ModelLoad]:
        """Run the test, and again until it has `enough`; `progress` is made anew for each."""
        loads = await test.run(client, progress())
        while not self.enough(loads):
            more = await test.run(client, progress())
            loads = {name: load + more[name] for name, load in loads.items()}
        return loads

    def enough(self, loads: Mapping[str, ModelLoad]) -> bool:
        """Look at all blocks so far; return whether they decide, or are as many as there may be."""
        ours, theirs = (loads[name].blocks for name in (self.candidate, self.live))
        paired = self.rule.decision_rule == "paired"
        if not self.looks.at:
            tests = self.max_blocks // len(ours) if paired else 1
            self.looks = Looks(of=len(ours) * max(1, tests))
        self.looks = self.looks.model_copy(update={"at": (*self.looks.at, len(ours))})
        self.ratios = ratios(ours, theirs)
        if len(ours) == self.looks.of:
            return True
        checks = regressions(self.ratios, self.looks, self.rule)
        missed = [each for each in checks if not each.passed]
        return not all(each.undecided for each in missed) or not missed


def ratios(candidate: Sequence[Block], live: Sequence[Block]) -> tuple[Ratio, ...]:
    """Return the ratios of P95 latency, P95 TTFT and throughput; none if a block was not answered.

    Each is the geometric mean over pairs of blocks, in which the prompts are the same and the
    machine is mostly so. One pair says nothing of the error.
    """
    measured = [[*map(_measures, side)] for side in (candidate, live)]
    if not all(block is not None for side in measured for block in side):
        return ()
    logs = [
        [math.log(mine / other) for mine, other in zip(ours or (), theirs or (), strict=True)]
        for ours, theirs in zip(*measured, strict=True)
    ]
    names: Sequence[Measure] = ("p95_latency", "p95_ttft", "throughput")
    return tuple(
        Ratio(
            measure=name,
            value=math.exp(mean(own)),
            error=stdev(own) / math.sqrt(len(own)) if len(own) > 1 else math.inf,
        )
        for name, own in zip(names, zip(*logs, strict=True), strict=True)
    )


def _measures(block: Block) -> tuple[float, float, float] | None:
    """Return a block's P95 latency, P95 TTFT and throughput; None if nothing was answered."""
    metrics = summarise(block.samples, block.duration)
    if metrics.latency is None or metrics.ttft is None:
        return None
    return metrics.latency.p95, metrics.ttft.p95, metrics.throughput


def change(candidate: Sequence[RequestSample], live: Sequence[RequestSample]) -> LatencyChange:
    """Return why the candidate's mean latency differs; each side has answers.

    Of an answer of n tokens the first comes after TTFT, the other n - 1 take the rest.
    """
    ttfts, tokens, paces = zip(*map(_means, (candidate, live)), strict=True)
    return LatencyChange(
        first_token=ttfts[0] - ttfts[1],
        tokens=(tokens[0] - tokens[1]) * paces[1],
        speed=(paces[0] - paces[1]) * tokens[0],
    )


def _means(samples: Sequence[RequestSample]) -> tuple[float, float, float]:
    """Return mean TTFT, mean tokens after the first, and seconds for one of those."""
    answered = [each for each in samples if each.latency is not None and each.ttft is not None]
    first = sum(each.ttft or 0.0 for each in answered)
    rest = sum(each.latency or 0.0 for each in answered) - first
    tokens = sum(each.output_tokens - 1 for each in answered)
    return first / len(answered), tokens / len(answered), rest / tokens if tokens else 0.0
