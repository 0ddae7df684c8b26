"""Files by key, in a local folder or in S3: the same three verbs for both."""

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from botocore.exceptions import BotoCoreError, ClientError
from dagster_aws.s3 import S3Resource

from lora_assets.errors import LoraAssetsError


@cache
def s3_client(endpoint_url: str) -> Any:
    """This process's client of an endpoint (empty: AWS itself), with the credentials it found.

    Making one takes longer than most requests, and keeps memory.
    """
    return S3Resource(endpoint_url=endpoint_url or None, max_attempts=3).get_client()


@dataclass(frozen=True)
class ObjectStore:
    """A bucket: `file:///folder` or `s3://bucket[/prefix]` (any S3-compatible endpoint).

    `s3_endpoint_url` is empty for AWS itself. Keys are relative, with forward slashes.
    """

    uri: str
    s3_endpoint_url: str = ""

    def get(self, key: str) -> bytes | None:
        """The bytes under `key`; None where there are none. Raises when the store fails."""
        if (folder := self._folder()) is not None:
            path = folder / key
            try:
                return path.read_bytes() if path.is_file() else None
            except OSError as error:
                raise LoraAssetsError(
                    f"Can't read {path}: {error.strerror}", "Mend its permissions or the disk."
                ) from None
        bucket, prefix = self._bucket()
        client = self._s3()
        try:
            return bytes(client.get_object(Bucket=bucket, Key=prefix + key)["Body"].read())
        except client.exceptions.NoSuchKey:
            return None
        except (BotoCoreError, ClientError) as error:
            raise self._unreachable(error) from None

    def put(self, key: str, content: bytes) -> None:
        """Store `content` under `key`, whole or not at all."""
        if (folder := self._folder()) is not None:
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
                    f"Can't write {path}: {error.strerror}", "Free space or mend the permissions."
                ) from None
            return
        bucket, prefix = self._bucket()
        try:
            self._s3().put_object(Bucket=bucket, Key=prefix + key, Body=content)
        except (BotoCoreError, ClientError) as error:
            raise self._unreachable(error) from None

    def keys(self, under: str) -> Iterator[str]:
        """The keys of all files in the folder `under`, relative to it, in any order."""
        if (folder := self._folder()) is not None:
            top = folder / under
            for parent, _, names in os.walk(top):
                inside = Path(parent).relative_to(top)
                yield from ((inside / name).as_posix() for name in names)
            return
        bucket, prefix = self._bucket()
        start = f"{prefix}{under}/"
        try:
            pages = self._s3().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=bucket, Prefix=start):
                for entry in page.get("Contents", ()):
                    yield entry["Key"][len(start) :]
        except (BotoCoreError, ClientError) as error:
            raise self._unreachable(error) from None

    def address(self, key: str) -> str:
        """The URI of `key`."""
        return f"{self.uri.rstrip('/')}/{key}"

    def _folder(self) -> Path | None:
        parts = urlsplit(self.uri)
        if parts.scheme == "file":
            return Path(unquote(parts.path))
        if parts.scheme == "s3":
            return None
        raise LoraAssetsError(
            f"{self.uri!r} is no bucket", "Give file:///folder or s3://bucket as the data bucket."
        )

    def _bucket(self) -> tuple[str, str]:
        parts = urlsplit(self.uri)
        prefix = parts.path.strip("/")
        return parts.netloc, f"{prefix}/" if prefix else ""

    def _s3(self) -> Any:
        try:
            return s3_client(self.s3_endpoint_url)
        except (BotoCoreError, ValueError) as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> LoraAssetsError:
        reason = " ".join(str(error).split()).rstrip(".")
        return LoraAssetsError(
            f"{self.uri} failed: {reason}", "Check the bucket's name, endpoint and credentials."
        )
