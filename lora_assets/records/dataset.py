"""A data version: three splits of question-answering rows."""

from collections.abc import Mapping
from typing import Literal

from pydantic import ConfigDict, Field, model_validator

from lora_assets.records import Record

SplitName = Literal["train", "val", "eval"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "eval")


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
