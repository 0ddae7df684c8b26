"""Where unfinished work is kept, so that a killed step goes on where it was."""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg


class WorkFolder(dg.ConfigurableResource[Any]):
    """A folder that outlives a step: checkpoints and journals, never results."""

    path: str

    def keyed(self, kind: str, **identity: Any) -> Path:
        """Return the folder of the work that `identity` describes, the same for each retry."""
        text = json.dumps(identity, sort_keys=True, default=str)
        folder = Path(self.path) / kind / hashlib.sha256(text.encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @contextmanager
    def temporary(self) -> Iterator[Path]:
        """Yield a folder that goes away with the block."""
        Path(self.path).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.path, prefix=".tmp-") as folder:
            yield Path(folder)
