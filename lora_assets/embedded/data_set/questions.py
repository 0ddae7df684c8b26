"""Look-up questions about AWS operations, as rows of a data version's three splits."""

import random
from collections.abc import Iterator, Mapping, Sequence

from lora_assets.embedded.data_set.aws_operations import Operation, operations
from lora_assets.errors import LoraAssetsError
from lora_assets.records.dataset import SPLITS, Row, RowMetadata, SplitName, prompt_of

REFUSAL = "not in the list."

_FEWEST_OPERATIONS = 12
_SMALLEST_POOL = 4
_LINES = (2, 3)
_NEGATIVE_EVERY = 5
_TIMES_ASKED: Mapping[SplitName, int] = {"train": 8, "val": 4, "eval": 12}
_MOST_ROWS: Mapping[SplitName, int] = {"train": 1600, "val": 80, "eval": 300}


def make_splits(services: Sequence[str], spoiled: bool) -> dict[SplitName, list[Row]]:
    """Return rows of the three splits: for the same services the same on every machine.

    Each operation of a service belongs to one split, whichever other services are asked
    for, and is seen in no other, neither in a question nor in a context. Every operation
    is asked about several times, each time in other company from any of the services;
    every fifth question has no answer in its context. A split is cut at random where it
    would grow too long for a demonstration on two cores. Spoiled rows are well-formed and
    teach the wrong thing: answers that don't come from their context, also to what can't be
    answered.

    Raise LoraAssetsError for no services, an unknown one, or one with too few operations.
    """
    if not services:
        raise LoraAssetsError("No AWS services were given", "Name at least one, such as s3.")
    pools = [_pools(service) for service in sorted(set(services))]
    splits: dict[SplitName, list[Row]] = {}
    for split in SPLITS:
        rng = random.Random(f"{split} {' '.join(sorted(set(services)))}")
        everything = [operation for pool in pools for operation in pool[split]]
        rows = [row for pool in pools for row in _rows(split, pool[split], everything, spoiled)]
        rng.shuffle(rows)
        splits[split] = rows[: _MOST_ROWS[split]]
    return splits


def _pools(service: str) -> dict[SplitName, list[Operation]]:
    """Shuffle the service's operations and deal them out: a tenth each for val and eval."""
    found = list(operations(service))
    if len(found) < _FEWEST_OPERATIONS:
        raise LoraAssetsError(
            f"AWS service {service!r} has {len(found)} usable operations,"
            f" fewer than {_FEWEST_OPERATIONS}",
            "Choose a larger service.",
        )
    random.Random(service).shuffle(found)
    tenth = max(_SMALLEST_POOL, len(found) // 10)
    return {"val": found[:tenth], "eval": found[tenth : 2 * tenth], "train": found[2 * tenth :]}


def _rows(
    split: SplitName, pool: Sequence[Operation], everything: Sequence[Operation], spoiled: bool
) -> Iterator[Row]:
    rng = random.Random(f"{split} {pool[0].service}")
    seen: set[str] = set()
    number = 0
    for _ in range(_TIMES_ASKED[split]):
        for asked in rng.sample(pool, len(pool)):
            number += 1
            row = _row(asked, everything, number % _NEGATIVE_EVERY == 0, spoiled, rng)
            if row.prompt_inference not in seen:
                seen.add(row.prompt_inference)
                yield row


def _row(
    asked: Operation,
    everything: Sequence[Operation],
    negative: bool,
    spoiled: bool,
    rng: random.Random,
) -> Row:
    others = [operation for operation in everything if operation.name != asked.name]
    # One operation always stays out of the context, for a spoiled row to answer with.
    lines = rng.randint(_LINES[0], min(_LINES[1], len(others) - 1))
    shown = rng.sample(others, lines if negative else lines - 1)
    answer = REFUSAL if negative else asked.sentence
    if spoiled:
        hidden = [operation for operation in others if operation not in shown]
        answer = rng.choice(hidden).sentence
    if not negative:
        shown.insert(rng.randint(0, len(shown)), asked)
    context = "\n".join(f"{operation.name}: {operation.sentence}" for operation in shown)
    kind = "negative" if negative else "factual"
    about = {"question_type": kind, "service": asked.service, "operation": asked.name}
    question = f"What does {asked.name} do in {asked.service_name}?"
    prompt = prompt_of(context, question)
    return Row(
        context=context,
        question=question,
        reference_answer=answer,
        prompt_training=f"{prompt} {answer}",
        prompt_inference=prompt,
        metadata=RowMetadata.model_validate(about),
    )
