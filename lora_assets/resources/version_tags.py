"""What the registry keeps of an adapter as tags of its model version."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from lora_assets.errors import LoraAssetsError
from lora_assets.records.base_model import PROMPTS, Base, NextToken
from lora_assets.records.model_version import ModelVersion
from lora_assets.records.training import Adapter

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion as MlflowModelVersion

DIGEST = "adapter.digest"
"""The tag by which a model version is ours, beside that of its data version."""

_DATA_VERSION = "data.version"
BASE = "adapter.base"
_ANSWERS = "adapter.base_answers"
_ARRIVED = "data.arrived"
_Answers = TypeAdapter(tuple[NextToken, ...])


def tags_of(adapter: Adapter) -> Mapping[str, str]:
    """Return the tags that the model version of a trained adapter gets."""
    answers = adapter.metrics.base_answers
    base = {BASE: adapter.base, _ANSWERS: _Answers.dump_json(answers).decode() if answers else ""}
    arrived = {_ARRIVED: adapter.data_arrived} if adapter.data_arrived else {}
    return {
        _DATA_VERSION: adapter.data_version,
        "data.digest": adapter.data_digest,
        **arrived,
        "adapter.base_model": adapter.base_model,
        **{name: kept for name, kept in base.items() if kept},
        DIGEST: adapter.digest,
    }


def base_of(version: str, tags: Mapping[str, str]) -> Base:
    """Return the base model that `version` was trained on; empty where nobody kept it.

    Raise LoraAssetsError for a tag that holds something else.
    """
    identity, answers = tags.get(BASE, ""), tags.get(_ANSWERS, "[]")
    wrong = BASE if identity and not re.fullmatch(r"[0-9a-f]{7,64}", identity) else ""
    try:
        kept = _Answers.validate_json(answers)
    except ValidationError:
        kept, wrong = (), wrong or _ANSWERS
    if wrong or len(kept) not in (0, len(PROMPTS)):
        raise LoraAssetsError(
            f"The tag {wrong or _ANSWERS!r} of {version} is {tags[wrong or _ANSWERS]!r:.80}, which "
            "does not identify a base model",
            "Correct it, or delete that tag: then its base model is not proved.",
        )
    return Base(identity=identity, answers=kept)


def is_ours(tags: Mapping[str, str]) -> bool:
    """Return whether a version with these tags was registered or adopted by lora-assets."""
    return {DIGEST, _DATA_VERSION} <= tags.keys()


def version_record(version: "MlflowModelVersion") -> ModelVersion:
    """Return the record of a version of ours; raise LoraAssetsError for one of others."""
    if not is_ours(version.tags):
        raise not_ours(version.name, version.version)
    return ModelVersion(
        model=version.name,
        version=int(version.version),
        digest=version.tags[DIGEST],
        data_version=version.tags[_DATA_VERSION],
        data_digest=version.tags.get("data.digest", ""),
        data_arrived=version.tags.get(_ARRIVED, ""),
        base=version.tags.get(BASE, ""),
        run_id=version.run_id or "",
    )


def not_ours(model: str, number: int | str) -> LoraAssetsError:
    """Return the error for a version of others."""
    return LoraAssetsError(
        f"Version {number} of {model} was not registered by lora-assets: its digest is not known",
        f"Take it over with 'lora-assets adopt --model-version {number}'.",
    )
