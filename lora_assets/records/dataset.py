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


def version_order(data_version: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that reads digits as numbers: 2 before 10, 2026-9 before 2026-11."""
    parts = re.findall(r"\d+|\D+", data_version)
    return tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts)


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


class SplitSummary(Record):
    """How many rows a split has, and how many of them are negatives."""

    rows: int
    negatives: int


class TrainingData(Record):
    """A validated data version: what the `training_data` asset stands for.

    `digest` is a sha256 over the names and bytes of the splits (hexadecimal, 64
    characters); `source` is the URI of the folder.
    """

    data_version: str
    digest: str
    source: str
    splits: Mapping[SplitName, SplitSummary]
