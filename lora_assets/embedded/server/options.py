"""The options that the embedded server starts with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from lora_assets.records import Record
from lora_assets.serving.vllm_plugin.adapters_folder import is_name
from lora_assets.serving.vllm_plugin.guard import Keys

PACKAGED_BASE_MODEL = Path(__file__).parents[1] / "base_model"


class ServerOptions(Record):
    """Named after vLLM's own options where it has one.

    `adapters_dir` holds the adapters' folders and `slots/`, whose links the slot resolver
    follows. `max_loras` is the number of adapters that one batch may mix, `max_num_seqs` the
    rows of a batch. `lora_modules` (name to folder) are loaded before the server listens.
    """

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    base_model: Path = PACKAGED_BASE_MODEL
    served_model_name: str = Field("embedded-base", min_length=1)
    adapters_dir: Path
    max_loras: int = Field(8, ge=1)
    max_lora_rank: Literal[1, 8, 16, 32, 64, 128, 256, 320, 512] = 32
    lora_modules: Mapping[str, Path] = Field(default_factory=dict)
    max_num_seqs: int = Field(16, ge=1)
    api_key: str | None = Field(None, repr=False)
    admin_key: str = Field("", repr=False)

    @property
    def keys(self) -> Keys:
        """Whose requests the server answers."""
        return Keys([self.api_key] if self.api_key else [], self.admin_key)

    @field_validator("lora_modules")
    @classmethod
    def _names_are_plain(cls, modules: Mapping[str, Path]) -> Mapping[str, Path]:
        for name in modules:
            if not is_name(name):
                raise ValueError(f"{name!r} is not a serving name (letters, digits, . _ -)")
        return modules
