"""Which base model a folder or a hub's cache holds: the bytes of its files, or the commit.

It runs inside vLLM too, so it needs nothing but the standard library.
"""

import hashlib
import os
from pathlib import Path
from threading import Thread

_WEIGHTS = ("*.safetensors", "*.bin")
_OTHERS = ("config.json", "tokenizer*", "special_tokens_map.json")
_BLOCK = 1 << 20


def digest_base(folder: Path) -> str | None:
    """sha256 over a folder's weights, configuration and tokenizer; None where it has no model."""
    weights = [file for pattern in _WEIGHTS for file in folder.glob(pattern)]
    if not weights or not (folder / "config.json").is_file():
        return None
    total = hashlib.sha256()
    for file in sorted({*weights, *(f for pattern in _OTHERS for f in folder.glob(pattern))}):
        own = hashlib.sha256()
        with file.open("rb") as content:
            while block := content.read(_BLOCK):
                own.update(block)
        total.update(f"{file.name}\0{own.hexdigest()}\0".encode())
    return total.hexdigest()


def cached_commit(name: str) -> str | None:
    """The commit of a hub's model that is in the cache; None where there is none or several."""
    home = os.environ.get("HF_HOME", "~/.cache/huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE", f"{home}/hub")).expanduser()
    snapshots = list(cache.glob(f"models--{name.replace('/', '--')}/snapshots/*"))
    return snapshots[0].name if len(snapshots) == 1 else None


class ServedBase:
    """Finds out which base model a server serves, aside: reading its files takes a while."""

    def __init__(self, identity: str | None = None) -> None:
        self._identity = identity
        self._reading: Thread | None = None

    def identity(self, source: str) -> str | None:
        """The base at `source` (a folder or a hub's name); None as long as it is not known."""
        if self._identity is None and self._reading is None:
            self._reading = Thread(target=self._read, args=(source,), daemon=True)
            self._reading.start()
        return self._identity

    def _read(self, source: str) -> None:
        folder = Path(source)
        self._identity = digest_base(folder) if folder.is_dir() else cached_commit(source)
