"""A data version: three splits of question-answering rows."""

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from lora_assets.errors import LoraAssetsError, validation_line
from lora_assets.records import Record

SplitName = Literal["train", "val", "eval"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "eval")


def is_version_name(name: str) -> bool:
    """Return whether a data version can have this name: it is a folder's, so it has no way out."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) is not None


def require_version_name(name: str) -> None:
    """Refuse a name that no data version can have."""
    if not is_version_name(name):
        raise LoraAssetsError(
            f"{name!r} can't be the name of a data version",
            "Use letters, digits, '.', '_' and '-', beginning with a letter or digit.",
        )


def version_order(data_version: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that reads digits as numbers: 2 before 10, 2026-9 before 2026-11."""
    parts = re.findall(r"\d+|\D+", data_version)
    return tuple((0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts)


class RowMetadata(Record):
    """What is known of a row beside its text; further keys of the file are kept."""

    model_config = ConfigDict(extra="allow")

    question_type: str = Field(min_length=1)


class Row(Record):
    """One question about one context, with the answer that was wanted.

    `prompt_training` is `prompt_inference` followed by the answer, so that the loss can
    be counted on the answer alone.
    """

    context: str = Field(min_length=1)
    question: str = Field(min_length=1)
    reference_answer: str = Field(min_length=1)
    prompt_training: str = Field(min_length=1)
    prompt_inference: str = Field(min_length=1)
    metadata: RowMetadata

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


def parse_split(name: SplitName, content: bytes, source: str) -> tuple[Row, ...]:
    """Return the rows of one split (JSON Lines, UTF-8).

    Raise LoraAssetsError with split and line for content that is empty, truncated (the last
    line does not end), not UTF-8, or has a row that breaks the schema.
    """
    where = f"{source}/{name}.jsonl"
    rebuild = "Build the data version again under a new name; a data version never changes."
    if not content.strip():
        raise LoraAssetsError(f"{where} is empty", rebuild)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise LoraAssetsError(f"{where} is not UTF-8 (byte {error.start})", rebuild) from None
    if not text.endswith("\n"):
        raise LoraAssetsError(f"{where} is truncated: its last line does not end", rebuild)
    rows: list[Row] = []
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            rows.append(Row.model_validate_json(line))
        except ValidationError as error:
            fault = f"{where} line {number}: {validation_line(error)}"
            raise LoraAssetsError(fault, rebuild) from None
    return tuple(rows)
