"""What a command leaves for the steps after it: Argo reads output parameters from files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from lora_assets.records.verdict import Verdict

Name = Literal["run-id", "data-version", "model-version", "digest", "result"]
NAMES: tuple[Name, ...] = ("run-id", "data-version", "model-version", "digest", "result")

LABELS: Mapping[str, Name] = {"digest": "digest", "model version": "model-version"}
"""Metadata of assets and gates that is an output."""

VERDICT = "verdict"
"""Metadata of a gate: its verdict, where that is kept nowhere else."""


class Outputs:
    """One small file per name in `folder`, written when it is known; none without a folder.

    `values` has them all; `verdicts` are those that the run alone knows.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.values: dict[Name, str] = {}
        self.verdicts: list[Verdict] = []
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            for name in NAMES:
                (folder / name).unlink(missing_ok=True)

    def write(self, name: Name, value: str) -> None:
        """Leave a value, in the place of an earlier one."""
        self.values[name] = value
        if self.folder is not None:
            (self.folder / name).write_text(value)

    def take(self, asset: str, metadata: Mapping[str, str]) -> None:
        """Leave what an asset's or gate's metadata says of the adapter."""
        if VERDICT in metadata:
            self.verdicts.append(Verdict.model_validate_json(metadata[VERDICT]))
        # The data has a digest too, which is not the adapter's.
        if asset != "training_data":
            for label, name in LABELS.items():
                if label in metadata:
                    self.write(name, metadata[label])
