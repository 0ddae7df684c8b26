"""Files by key, in a local folder or in S3: the same three verbs for both."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from filelock import FileLock

from lora_assets.bounded_calls import MOST_REPLY_BYTES, require_at_most, within
from lora_assets.errors import LoraAssetsError
from lora_assets.heavy_imports import heavy_imports

_BUFFER_BYTES = 1 << 20
NO_S3: Any = None
"""In the place of an S3Resource, for a bucket that is a folder."""


def s3_resource(**fields: Any) -> Any:
    """Return Dagster's S3Resource; importing it takes half a second of CPU.

    Keys, and what no field says, are found as AWS's own tools find them.
    """
    with heavy_imports():
        from dagster_aws.s3 import S3Resource
    return S3Resource(**{"max_attempts": 3, **fields})


@cache
def s3_client(s3: Any) -> Any:
    """Return this process's client of an S3Resource (None: of one without a field).

    Making one takes longer than most requests, and keeps memory.
    """
    return (s3 or s3_resource()).get_client()


@dataclass(frozen=True)
class ObjectStore:
    """A bucket: `file:///folder` or `s3://bucket[/prefix]` (any S3-compatible endpoint).

    `s3` is Dagster's S3Resource. Keys are relative, with forward slashes.
    """

    uri: str
    s3: Any = NO_S3

    def get(self, key: str, at_most: int = MOST_REPLY_BYTES) -> bytes | None:
        """Return the bytes under `key`, None where there are none; refuse more than `at_most`."""
        with self.open(key) as found:
            if found is None:
                return None
            remedy = "Correct what lies there. Where it is right, use fewer rows."
            require_at_most(self.address(key), found[1], at_most, remedy)
            return found[0].read()

    @contextmanager
    def open(self, key: str) -> Iterator[tuple[IO[bytes], int] | None]:
        """Yield the file under `key`, to be read once, and its length; None where there is none."""
        if (folder := self._folder()) is not None:
            path = folder / key
            try:
                if not path.is_file():
                    yield None
                    return
                with path.open("rb") as file:
                    yield file, os.fstat(file.fileno()).st_size
            except OSError as error:
                raise LoraAssetsError(
                    f"Can't read {path}: {error.strerror}", "Check its permissions and the disk."
                ) from None
            return
        with self._s3() as (client, bucket, prefix):
            try:
                began = time.monotonic()
                reply = within(partial(client.get_object, Bucket=bucket, Key=prefix + key))
            except client.exceptions.NoSuchKey:
                reply = None
            if reply is None:
                yield None
                return
            body = reply["Body"]
            yield BufferedReader(_Paced(body, began), _BUFFER_BYTES), reply["ContentLength"]
            body.close()  # Not where it is late: that would wait for the read that goes on.

    def put(self, key: str, content: bytes, *, once: bool = False) -> None:
        """Store `content` under `key`, whole or not at all; S3 refuses to overwrite with `once`."""
        if (folder := self._folder()) is None:
            unless = {"IfNoneMatch": "*"} if once else {}
            with self._s3() as (client, bucket, prefix):
                put = partial(client.put_object, Bucket=bucket, Key=prefix + key, Body=content)
                within(partial(put, **unless), lambda: len(content))
            return
        path = folder / key
        aside = path.with_name(f".{path.name}.{uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(content)
            aside.replace(path)
        except OSError as error:
            with suppress(OSError):
                aside.unlink()
            raise LoraAssetsError(
                f"Can't write {path}: {error.strerror}", "Free space or correct the permissions."
            ) from None

    @contextmanager
    def one_writer(self, under: str) -> Iterator[None]:
        """Have one process at a time write to the folder `under`; S3 refuses the second `once`."""
        if (folder := self._folder()) is None:
            yield
            return
        (folder / under).mkdir(parents=True, exist_ok=True)
        with FileLock(folder / under / ".lock"):
            yield

    def changed_at(self, key: str) -> datetime:
        """Return when the file under `key` came here, in UTC; raise where there is none."""
        if (folder := self._folder()) is not None:
            return datetime.fromtimestamp((folder / key).stat().st_mtime, UTC)
        with self._s3() as (client, bucket, prefix):
            head = within(partial(client.head_object, Bucket=bucket, Key=prefix + key))
            changed: datetime = head["LastModified"]
            return changed.astimezone(UTC)

    def keys(self, under: str) -> Iterator[str]:
        """Return the keys in the folder `under`, relative to it, in any order.

        A local folder is read two levels deep, through links too; each folder in it has a key
        that ends with a slash, as the markers in S3 have.
        """
        if (folder := self._folder()) is not None:
            for path in (folder / under).glob("*"):
                yield f"{path.name}/" if path.is_dir() else path.name
                yield from (f"{path.name}/{file.name}" for file in path.glob("*") if file.is_file())
            return
        with self._s3() as (client, bucket, prefix):
            start = f"{prefix}{under}/"
            listing = client.get_paginator("list_objects_v2")
            pages = iter(listing.paginate(Bucket=bucket, Prefix=start))
            while page := within(partial(next, pages, None)):
                yield from (entry["Key"][len(start) :] for entry in page.get("Contents", ()))

    def address(self, key: str) -> str:
        """Return the URI of `key`."""
        return f"{self.uri.rstrip('/')}/{key}"

    def _folder(self) -> Path | None:
        parts = urlsplit(self.uri)
        if not {"?", "#"} & set(self.uri):
            if parts.scheme == "file" and parts.netloc in ("", "localhost"):
                return Path(unquote(parts.path))
            if parts.scheme == "s3" and parts.netloc:
                return None
        raise LoraAssetsError(
            f"{self.uri!r} does not name a bucket",
            "Give file:///folder or s3://bucket as the data bucket.",
        )

    @contextmanager
    def _s3(self) -> Iterator[tuple[Any, str, str]]:
        """Yield client, bucket and key prefix; raise what fails in the block in one line."""
        from botocore.exceptions import BotoCoreError, ClientError

        parts = urlsplit(self.uri)
        prefix = parts.path.strip("/")
        try:
            # A ValueError is an endpoint that is not a URL.
            yield s3_client(self.s3), parts.netloc, f"{prefix}/" if prefix else ""
        except (BotoCoreError, ClientError, ValueError, TimeoutError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise LoraAssetsError(
                f"{self.uri} failed: {reason}", "Check the bucket's name, endpoint and credentials."
            ) from None


class _Paced(RawIOBase):
    """The body of S3's reply to a request that `began` then, which has to go on arriving."""

    def __init__(self, body: Any, began: float) -> None:
        self._body, self._began, self._arrived = body, began, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read = partial(self._body.readinto, buffer)
        count: int = within(read, lambda: self._arrived, self._began)
        self._arrived += count
        return count
