"""Data versions that are different, and good enough to pass every gate where nothing is live."""

from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

from lora_assets.embedded.data_set.versions import build
from lora_assets.resources.data_bucket import PROCESSED


def drop(bucket: str, data_version: str, without: int = 0, spoiled: bool = False) -> None:
    """Put the demo's first data version into a local bucket, whole or not at all.

    Its training split lacks the first rows, `without` many.
    """
    top = Path(unquote(urlsplit(bucket).path)) / PROCESSED
    top.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=top, prefix=".") as aside:
        built = build(data_version, ["logs"], Path(aside), spoiled)
        train = built / "train.jsonl"
        train.write_bytes(b"".join(train.read_bytes().splitlines(keepends=True)[without:]))
        built.rename(top / data_version)
