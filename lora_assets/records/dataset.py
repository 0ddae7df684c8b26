"""A data version: three splits of question-answering rows."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from lora_assets.errors import LoraAssetsError
from lora_assets.records import Record

SplitName = Literal["train", "val", "eval"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "eval")


def is_version_name(name: str) -> bool:
    """Return whether a data version can have this name: it is a folder's, so it has no way out.

    Dagster reads three dots as a range of partitions.
    """
    return "..." not in name and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) is not None


def require_version_name(name: str) -> None:
    """Refuse a name that no data version can have."""
    if not is_version_name(name):
        raise LoraAssetsError(
            f"{name!r} can't be the name of a data version",
            "Use letters, digits, '.' (not three), '_' and '-'; begin with a letter or digit.",
        )


_PRE_RELEASES = ("dev", "alpha", "beta", "pre", "preview", "rc")
_NUMBERED = re.compile(
    r"(?P<prefix>\D*?)(?P<numbers>\d+([._-]\d+)*)"
    rf"([._-]?(?P<stage>{'|'.join(_PRE_RELEASES)})[._-]?(?P<attempt>\d*))?"
    r"(?P<label>[._-]\D.*)?",
    re.IGNORECASE,
)


def version_order(data_version: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that reads digits as numbers: 2 before 10, 2026-9 before 2026-11.

    A pre-release comes before its release: 1.0-rc1 before 1.0.
    """
    keys: list[tuple[int, int, str]] = []
    for part in re.findall(r"\d+|\D+", data_version):
        is_before = bool(keys) and part.strip("._-").lower() in _PRE_RELEASES
        keys.append((0, int(part), "") if part.isdigit() else (-2 if is_before else 1, 0, part))
    return (*keys, (-1, 0, ""))


def older_by_name(one: str, other: str) -> bool | None:
    """Return whether data version `one` came before `other`; None where the names don't say.

    They say so where they count in the same way: 2 and 10, 2026-09 and 2026-11-baseline,
    1.0-rc1 and 1.0; not a1b2c3, nor 7 beside 2026-01, nor two names of the same number.
    """
    if one == other:
        return False
    first, second = _NUMBERED.fullmatch(one), _NUMBERED.fullmatch(other)
    if first is None or second is None or _kind(first) != _kind(second):
        return None
    numbers, others = _numbers(first), _numbers(second)
    if first["label"] or second["label"]:
        # 2026-01-baseline may be before or after 2026-01-15.
        shared = min(len(numbers), len(others))
        numbers, others = numbers[:shared], others[:shared]
    place, place_of_other = (numbers, _stage(first)), (others, _stage(second))
    return None if place == place_of_other else place < place_of_other


def _kind(count: re.Match[str]) -> tuple[str, str]:
    """Return what a name counts by: its prefix, and dates or plain numbers."""
    date = re.match(r"(19|20|21)\d\d(\d{4})?(?!\d)", count["numbers"])
    return count["prefix"].casefold(), f"{len(date[0])} digits" if date else ""


def _numbers(count: re.Match[str]) -> tuple[int, ...]:
    """Return a name's numbers, for which 1.0 is 1."""
    numbers = re.sub(r"([._-]0+)+$", "", count["numbers"])
    return tuple(map(int, re.split("[._-]", numbers)))


def _stage(count: re.Match[str]) -> tuple[int, int]:
    """Return where a pre-release stands on the way to its release, which comes last."""
    if not count["stage"]:
        return len(_PRE_RELEASES), 0
    return _PRE_RELEASES.index(count["stage"].lower()), int(count["attempt"] or 0)


def _readable(text: str) -> str:
    if not re.sub(r"[\s\ufeff\u200b-\u200d\u2060]", "", text):
        raise PydanticCustomError("blank", "is blank")
    if re.search(r"[\ud800-\udfff]", text):
        raise PydanticCustomError("surrogate", "holds half of a character (a lone surrogate)")
    return text


def _usual_spelling(question_type: Any) -> Any:
    """Return a type as it is usually spelled: "Multi-Hop " is multi_hop; without one, factual."""
    if question_type is None:
        return "factual"
    if not isinstance(question_type, str):
        return question_type
    return re.sub(r"[\W_]+", "_", question_type.casefold()).strip("_") or "factual"


def _or_empty(metadata: Any) -> Any:
    return {} if metadata is None else metadata


Text = Annotated[str, AfterValidator(_readable)]


class RowMetadata(Record):
    """What is known of a row beside its text; further keys of the file are kept."""

    model_config = ConfigDict(extra="allow")

    question_type: Annotated[str, BeforeValidator(_usual_spelling)] = "factual"


class Row(Record):
    """One question about one context, with the answer that was wanted; further keys are kept.

    `prompt_training` is `prompt_inference` followed by the answer, so that the loss can
    be counted on the answer alone.
    """

    model_config = ConfigDict(extra="allow")

    context: Text
    question: Text
    reference_answer: Text
    prompt_training: Text
    prompt_inference: Text
    metadata: Annotated[RowMetadata, BeforeValidator(_or_empty)] = RowMetadata()

    @model_validator(mode="after")
    def _answer_follows_prompt(self) -> "Row":
        if not self.prompt_training.startswith(self.prompt_inference):
            raise ValueError("prompt_training does not begin with prompt_inference")
        if not self.answer.strip():
            raise ValueError("prompt_training has no answer after prompt_inference")
        return self

    @property
    def answer(self) -> str:
        """The text that training puts after the prompt."""
        return self.prompt_training[len(self.prompt_inference) :]

    @property
    def is_negative(self) -> bool:
        """True where the context does not hold the answer and declining is right."""
        return self.metadata.question_type == "negative"


def prompt_of(context: str, question: str) -> str:
    """Return the prompt of a question on a context, as production sends it."""
    return f"[INST] Context:\n{context}\n\nQuestion: {question} [/INST]"


def prompt_like(row: Row, context: str, question: str) -> str | None:
    """Return the prompt of another question in the form of a row's, whatever template that has.

    None where the row's prompt does not have its context and its question word for word.
    """
    before, found, after = row.prompt_inference.partition(row.context)
    if found and row.question in after:
        return f"{before}{context}{after.replace(row.question, question, 1)}"
    if found and row.question in before:
        return f"{before.replace(row.question, question, 1)}{context}{after}"
    return None


class SplitSummary(Record):
    """How many rows a split has, and how many of them are negatives."""

    rows: int
    negatives: int


class TrainingData(Record):
    """A validated data version: what the `training_data` asset stands for.

    `digest` is a sha256 over the names and bytes of the splits (hexadecimal, 64
    characters); `source` is the URI of the folder. `arrived` is when its last split came to the
    bucket, as ISO 8601 in UTC; empty where an earlier release made the record.
    """

    data_version: str
    digest: str
    source: str
    splits: Mapping[SplitName, SplitSummary]
    arrived: str = ""
