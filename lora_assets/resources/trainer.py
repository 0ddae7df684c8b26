"""The base model that adapters are trained on, and the stack's own training defaults."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import ValidationError

from lora_assets.errors import LoraAssetsError, validation_line
from lora_assets.heavy_imports import heavy_imports
from lora_assets.records.dataset import Row, SplitName
from lora_assets.records.split_file import Fault, summary
from lora_assets.records.training import (
    EMBEDDED_PARAMETERS,
    LORA_PROFILES,
    Listeners,
    Losses,
    TrainingMetrics,
    TrainingParameters,
)
from lora_assets.training import require_torch
from lora_assets.training.base_identity import base_identity


class Trainer(dg.ConfigurableResource[Any]):
    """Trains on `base_model` (a folder or a hub name), which adapters know as `base_model_name`.

    `embedded` chooses the defaults that suit the small base model over the specification's.
    """

    base_model: str
    base_model_name: str
    embedded: bool

    def parameters(self, overrides: Mapping[str, Any]) -> TrainingParameters:
        """The stack's defaults with what a run overrides; raise for one that is not possible."""
        defaults = EMBEDDED_PARAMETERS if self.embedded else TrainingParameters()
        try:
            return TrainingParameters.model_validate({**defaults.model_dump(), **overrides})
        except ValidationError as error:
            name = str(error.errors()[0]["loc"][0])
            value = overrides[name]
            remedy = f"Correct {name}."
            if name == "lora_config":
                (nearest,) = get_close_matches(str(value), LORA_PROFILES, n=1, cutoff=0)
                remedy = f"Choose {', '.join(LORA_PROFILES)}; the nearest is {nearest!r}."
            if name == "lora_method" and value == "dora":
                remedy = "vLLM does not serve DoRA: use lora or rslora."
            raise LoraAssetsError(
                f"{name} = {value!r} is not possible ({validation_line(error)})", remedy
            ) from None

    def misfits(
        self,
        splits: Mapping[SplitName, Mapping[int, Row]],
        max_seq_length: int,
        max_model_len: int | None,
        share: float,
    ) -> Sequence[Fault]:
        """Return what of the rows does not fit the base model's tokenizer or the two lengths.

        Raise LoraAssetsError for a base model that can't be read, or is not supported.
        """
        require_torch()
        with heavy_imports():
            from lora_assets.training.fit import misfits
            from lora_assets.training.qlora import load_tokenizer, require_architecture

        require_architecture(self.base_model)
        tokenizer = load_tokenizer(self.base_model)
        return misfits(splits, tokenizer, max_seq_length, max_model_len, share)

    def require_fit(
        self,
        splits: Mapping[SplitName, Sequence[Row]],
        max_seq_length: int,
        max_model_len: int | None,
        share: float,
    ) -> None:
        """Refuse data with what `misfits` finds."""
        numbered = {name: dict(enumerate(rows, start=1)) for name, rows in splits.items()}
        if faults := self.misfits(numbered, max_seq_length, max_model_len, share):
            raise LoraAssetsError(
                f"Rows don't fit: {summary(faults)}",
                "Correct or shorten them, raise max-seq-length (and the server's max_model_len), "
                "or allow a share of long ones by max-left-out.",
            )

    def base_identity(self) -> str:
        """Return the digest of the base model's files, or the hub's commit of them."""
        return base_identity(self.base_model)

    def train(
        self,
        splits: Mapping[SplitName, Sequence[Row]],
        parameters: TrainingParameters,
        work: Path,
        output: Path,
        told: Listeners,
    ) -> TrainingMetrics:
        """Train an adapter into the folder `output`, going on from what `work` holds."""
        require_torch()
        # Only the step that trains pays for loading torch, and its image alone has it.
        with heavy_imports():
            from torch.cuda import device_count

            from lora_assets.training.several_gpus import train_in_processes
            from lora_assets.training.train import train

        rows = (splits["train"], splits["val"])
        job = partial(train, *rows, self.base_model, self.base_model_name, parameters, work, output)
        gpus = device_count()
        return train_in_processes(gpus, job, told) if gpus > 1 else job(told)

    def measure(
        self,
        rows: Sequence[Row],
        adapter: Path,
        parameters: TrainingParameters,
        on_note: Callable[[str], None],
    ) -> Losses:
        """Return the loss on the val split of an adapter that was trained elsewhere."""
        require_torch()
        with heavy_imports():
            from lora_assets.training.measure import measure

        return measure(rows, self.base_model, adapter, parameters, on_note)
