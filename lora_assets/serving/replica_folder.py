"""The adapters folder of one replica, wherever it lies."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lora_assets.errors import LoraAssetsError
from lora_assets.serving import adapter_files
from lora_assets.serving.vllm_plugin import adapters_folder
from lora_assets.serving.vllm_plugin.adapters_folder import Refused


class ReplicaFolder(Protocol):
    """What can be done to the folder that a replica reads its adapters from.

    Every method raises LoraAssetsError, with nothing changed, when it can't be done.
    """

    @property
    def path(self) -> str:
        """The folder as the replica sees it."""

    def place(self, source: Path, digest: str) -> None:
        """Have the adapter in `source` there as `<digest>/`, its digest taken where it lies."""

    def verify(self, digest: str) -> None:
        """Refuse an adapter that is missing there, or whose bytes are other ones."""

    def intact(self, digest: str) -> bool:
        """Whether the adapter is there with the bytes that its digest says."""

    def set_name(self, name: str, digest: str) -> None:
        """Let an adapter's own serving name stand for its digest folder."""

    def set_slot(self, slot: str, name: str) -> None:
        """Let a slot stand for an adapter's own name, from the next request on."""

    def clear_slot(self, slot: str) -> None:
        """Let a slot stand for nothing."""

    def slots(self) -> Mapping[str, str]:
        """The adapter's own name that each slot stands for."""

    def contents(self) -> Mapping[str, Mapping[str, str]]:
        """`digests`: folder to the digest of what it holds; `names`; `slots`."""

    def prune(self, keep: Sequence[str]) -> None:
        """Remove adapters but for the digests in `keep` and those that a slot stands for."""


@dataclass(frozen=True)
class SharedFolder:
    """A folder that this process and its replicas see under one path."""

    path: str

    def place(self, source: Path, digest: str) -> None:
        """Have the adapter in `source` there as `<digest>/`, its digest taken where it lies."""
        adapter_files.verify(source, digest)
        with self._named():
            if not adapters_folder.intact(self._root, digest):
                adapters_folder.copy(self._root, digest, source)

    def verify(self, digest: str) -> None:
        """Refuse an adapter that is missing there, or whose bytes are other ones."""
        with self._named():
            adapters_folder.require(self._root, digest)

    def intact(self, digest: str) -> bool:
        """Whether the adapter is there with the bytes that its digest says."""
        with self._named():
            return adapters_folder.intact(self._root, digest)

    def set_name(self, name: str, digest: str) -> None:
        """Let an adapter's own serving name stand for its digest folder."""
        with self._named():
            adapters_folder.set_name(self._root, name, digest)

    def set_slot(self, slot: str, name: str) -> None:
        """Let a slot stand for an adapter's own name, from the next request on."""
        with self._named():
            adapters_folder.set_slot(self._root, slot, name)

    def clear_slot(self, slot: str) -> None:
        """Let a slot stand for nothing."""
        with self._named():
            adapters_folder.clear_slot(self._root, slot)

    def slots(self) -> Mapping[str, str]:
        """The adapter's own name that each slot stands for."""
        with self._named():
            return adapters_folder.slots(self._root)

    def contents(self) -> Mapping[str, Mapping[str, str]]:
        """`digests`: folder to the digest of what it holds; `names`; `slots`."""
        with self._named():
            return adapters_folder.contents(self._root)

    def prune(self, keep: Sequence[str]) -> None:
        """Remove adapters but for the digests in `keep` and those that a slot stands for."""
        with self._named():
            adapters_folder.prune(self._root, keep)

    @property
    def _root(self) -> Path:
        return Path(self.path)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except Refused as error:
            raise refusal(self.path, str(error)) from None
        except OSError as error:
            raise unchanged(self.path, error.strerror or str(error)) from None


def unchanged(where: str, cause: str) -> LoraAssetsError:
    """A folder that the operating system would not let change."""
    return LoraAssetsError(
        f"Can't change {where} ({cause})",
        "Free space there or mend the permissions; nothing was changed.",
    )


def refusal(where: str, cause: str) -> LoraAssetsError:
    """A folder's own refusal, with what to do about it."""
    return LoraAssetsError(f"{where}: {cause}", "Deploy that model version again.")


def once_each(folders: Iterable[ReplicaFolder]) -> Sequence[ReplicaFolder]:
    """The folders, those that several replicas share but once."""
    return list(dict.fromkeys(folders))
