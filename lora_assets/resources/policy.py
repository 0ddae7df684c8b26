"""The file that says what this deployment demands of an adapter."""

from pathlib import Path
from typing import Any

import dagster as dg

from lora_assets.errors import LoraAssetsError
from lora_assets.gates.policy import SPECIFICATION, Policy, parse_policy


class PolicyFile(dg.ConfigurableResource[Any]):
    """A policy in YAML; an empty `path` stands for the specification's limits.

    Where it does not say who promotes, `automatic_promotion` does: with it a version that passed
    every gate goes live, else it waits for a person.
    """

    path: str = ""
    automatic_promotion: bool = False

    def read(self) -> Policy:
        """Return the policy as it stands now; raise LoraAssetsError where it can't be read."""
        if not self.path:
            return SPECIFICATION
        try:
            content = Path(self.path).read_bytes()
        except OSError as error:
            raise LoraAssetsError(
                f"The policy {self.path} can't be read: {error.strerror}",
                "Correct LORA_ASSETS_POLICY.",
            ) from None
        try:
            return parse_policy(content)
        except LoraAssetsError as error:
            raise LoraAssetsError(f"{self.path}: {error.cause}", error.remedy) from None
