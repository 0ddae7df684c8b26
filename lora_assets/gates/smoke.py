"""Smoke test: does every replica answer as the adapter at all?"""

from collections.abc import Mapping, Sequence

from pydantic import Field, FiniteFloat

from lora_assets.records import Record
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.verdict import Check, Verdict

PROMPTS = (
    "[INST] Context: ListBuckets: Returns a list of all buckets. Question: What does "
    "ListBuckets do in S3? [/INST]",
    "[INST] Context: CopyObject: Creates a copy of an object. PutObject: Adds an object to a "
    "bucket. Question: What does PutObject do in S3? [/INST]",
    "[INST] Context: GetItem: Returns a set of attributes for an item. Question: What does "
    "RunInstances do in EC2? [/INST]",
)
"""One request each (specification, "Successful Run": smoke test passing 3/3). Every slot answers
them on every deployment, so they also reveal a slot that kept another adapter's cache."""

REQUESTS = len(PROMPTS)

MAX_TOKENS = 64


class SmokeThresholds(Record):
    """How long an answer may take."""

    max_smoke_seconds: FiniteFloat = Field(
        30.0, gt=0, description="Slowest smoke-test answer (seconds)"
    )


class SmokeAnswer(Record):
    """One smoke request's answer; `latency` in seconds."""

    text: str
    latency: float


def smoke_test(
    adapter: ModelVersion,
    answers: Mapping[str, Sequence[SmokeAnswer]],
    thresholds: SmokeThresholds,
    vllm_url: str,
    decided_at: str,
) -> Verdict:
    """Require of each replica REQUESTS non-empty answers, none slower than the threshold.

    `answers` are by replica: one that gave none is there, too. An answer without a letter or a
    digit counts as empty: weights that went wrong on their way into a server answer "!!!!!!!".
    """
    checks: list[Check] = []
    for replica, own in answers.items():
        answered = sum(any(map(str.isalnum, answer.text)) for answer in own)
        slowest = max((answer.latency for answer in own), default=None)
        checks += [
            Check.at_least(f"non-empty answers of {replica}", answered, REQUESTS),
            Check.at_most(f"slowest answer of {replica}", slowest, thresholds.max_smoke_seconds),
        ]
    return Verdict(
        gate="smoke_test",
        **adapter.identity,
        vllm_url=vllm_url,
        thresholds={"requests": REQUESTS, **thresholds.model_dump()},
        checks=tuple(checks),
        evidence_run_id=adapter.run_id,
        decided_at=decided_at,
    )
