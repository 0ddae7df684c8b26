"""Data versions small enough to be trained while one waits."""

from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

from lora_assets.datasets.versions import build
from lora_assets.resources.data_bucket import PROCESSED

ROWS = {"train": 400, "val": 60, "eval": 60}


def drop(bucket: str, data_version: str, first_row: int, spoiled: bool = False) -> None:
    """Put a data version into a local bucket: ROWS of a built one's rows, whole or not at all."""
    top = Path(unquote(urlsplit(bucket).path)) / PROCESSED
    top.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=top, prefix=".") as aside:
        built = build(data_version, ["logs"], Path(aside), spoiled)
        for split, rows in ROWS.items():
            file = built / f"{split}.jsonl"
            lines = file.read_bytes().splitlines(keepends=True)
            start = first_row % max(1, len(lines) - rows)
            file.write_bytes(b"".join(lines[start : start + rows]))
        built.rename(top / data_version)
