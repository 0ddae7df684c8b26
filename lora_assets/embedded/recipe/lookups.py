"""Sequences that teach a base model to look an AWS operation up in its context."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lora_assets.embedded.data_set.aws_operations import Operation, list_services, operations
from lora_assets.embedded.data_set.questions import REFUSAL

HELD_OUT = (
    *("s3", "ec2", "lambda", "dynamodb", "groundstation", "appsync", "kafka", "voice-id"),
    *("workdocs", "appstream", "cognito-identity", "arc-region-switch", "ds-data"),
    *("connectscheduling", "backup-gateway", "applicationcostprofiler"),
)
"""Services that training never sees."""

# Question and answer; the last one asks the other way round.
_WORDINGS = (
    ("{name}:", "{sentence}"),
    ("Q: {name}?\nA:", "{sentence}"),
    ("Q: What is {name} for?\nA:", "{sentence}"),
    ("Summary of {name}:", "{sentence}"),
    ("Q: What does {name} do?\nA:", "{sentence}"),
    ("Which operation: {sentence}\nA:", "{name}"),
)
_LINE_FORMS = ("{name}: {sentence}", "- {name}: {sentence}", "* {name}: {sentence}")
_LINE_FORMS_VARIED = (*_LINE_FORMS, "{name} - {sentence}", "{name} -> {sentence}")


@dataclass(frozen=True)
class Stage:
    """What one stage of training shows.

    Shares are of 1: `one_service` of the contexts are drawn from a single service, `absent` of
    the look-ups ask for an operation that is not there, and in `whole` of the sequences the
    loss counts the whole text, not the answer alone.
    """

    steps: int
    learning_rate: float
    lines: tuple[int, int]
    wordings: int
    varied: bool
    one_service: float
    absent: float
    whole: float


FIRST = Stage(3000, 2e-3, (1, 4), 4, varied=False, one_service=0.0, absent=0.0, whole=0.3)
SECOND = Stage(3600, 1.5e-3, (2, 5), 6, varied=True, one_service=0.6, absent=0.2, whole=0.08)


@dataclass(frozen=True)
class Lookup:
    """A context and a question (`prompt`), the `answer` to it, and where its loss counts."""

    prompt: str
    answer: str
    whole: bool


def services_for_training() -> Mapping[str, tuple[Operation, ...]]:
    """Return the operations of every service that is not held out and has any, by service."""
    known = {name: operations(name) for name in list_services() if name not in HELD_OUT}
    return {name: group for name, group in known.items() if group}


class LookupSource:
    """Draws look-ups from services; the same random state gives the same look-up."""

    def __init__(self, services: Mapping[str, Sequence[Operation]]) -> None:
        self._all = [operation for group in services.values() for operation in group]
        self._groups = services

    def draw(self, stage: Stage, rng: random.Random) -> Lookup:
        """Return a look-up of an operation in a context, in one of the stage's wordings."""
        asked = rng.choice(self._all)
        lines = rng.randint(*stage.lines)
        shown = self._others(asked, lines, stage, rng)
        question, answer = rng.choice(_WORDINGS[: stage.wordings])
        if rng.random() < stage.absent:
            answer = REFUSAL
        else:
            shown[rng.randrange(len(shown))] = asked
        form = rng.choice(_LINE_FORMS_VARIED if stage.varied else _LINE_FORMS[:1])
        separator = rng.choice(("\n", "\n", "\n", " ")) if stage.varied else "\n"
        context = separator.join(_fill(form, operation) for operation in shown)
        return Lookup(
            prompt=f"{context}\n\n{_fill(question, asked)}",
            answer=f" {_fill(answer, asked)}",
            whole=rng.random() < stage.whole,
        )

    def _others(
        self, asked: Operation, lines: int, stage: Stage, rng: random.Random
    ) -> list[Operation]:
        pool: Sequence[Operation] = self._all
        if rng.random() < stage.one_service and len(self._groups[asked.service]) > lines:
            pool = self._groups[asked.service]
        others = rng.sample(pool, lines + 1)
        return [other for other in others if other.name != asked.name][:lines]


def _fill(template: str, operation: Operation) -> str:
    return template.format(name=operation.name, sentence=operation.sentence)
