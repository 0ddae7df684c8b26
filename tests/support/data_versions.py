"""Data versions that are different, and good enough to pass every gate where nothing is live."""

from lora_assets.embedded.data_set.versions import contents
from lora_assets.resources.data_bucket import DataBucket


def drop(bucket: str, data_version: str, without: int = 0, spoiled: bool = False) -> None:
    """Put the demo's first data version into a bucket; it counts once all of it is there.

    Its training split lacks the first rows, `without` many.
    """
    whole = contents(["logs"], spoiled)
    train = b"".join(whole["train"].splitlines(keepends=True)[without:])
    DataBucket(uri=bucket).add(data_version, {**whole, "train": train})
