"""The adapters folder of one replica: one API over two transports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from lora_assets.errors import LoraAssetsError
from lora_assets.serving import adapter_files
from lora_assets.serving.vllm_plugin import adapters_folder

Answer = Mapping[str, object]
"""`done` with what the command gives, or `refused` or `failed` with the cause."""


class Transport(Protocol):
    """How the commands of `vllm_plugin/adapters_folder.py` reach the folder `path`."""

    @property
    def path(self) -> str:
        """The folder as the replica sees it."""

    def run(self, command: str, *arguments: str, adapter: Path | None = None) -> Answer:
        """Return what `adapters_folder.answer` says; `adapter` is the folder to send along."""


@dataclass(frozen=True)
class SharedFolder:
    """The transport to a folder that this process and its replicas see under one path."""

    path: str

    def __str__(self) -> str:
        return self.path

    def run(self, command: str, *arguments: str, adapter: Path | None = None) -> Answer:
        """Run the command in this process."""
        if adapter is not None:
            command, arguments = "copy", (*arguments, str(adapter))
        return adapters_folder.answer(Path(self.path), command, arguments)


@dataclass(frozen=True)
class ReplicaFolder:
    """The folder that a replica reads its adapters from; replicas may share an equal one.

    Every method raises LoraAssetsError, with nothing changed, when it can't be done.
    """

    transport: Transport

    @property
    def path(self) -> str:
        """The folder as the replica sees it."""
        return self.transport.path

    def place(self, source: Path, digest: str) -> None:
        """Have the adapter in `source` there as `<digest>/`, its digest taken where it lies."""
        adapter_files.verify(source, digest)
        if not self.intact(digest):
            self._run("receive", digest, adapter=source)

    def verify(self, digest: str) -> None:
        """Refuse an adapter that is missing there, or whose bytes have changed."""
        self._run("verify", digest)

    def intact(self, digest: str) -> bool:
        """Return whether the adapter is there with the bytes that its digest says."""
        return self._run("intact", digest) is True

    def set_name(self, name: str, digest: str) -> None:
        """Let an adapter's own serving name stand for its digest folder."""
        self._run("set_name", name, digest)

    def set_slot(self, slot: str, name: str, seen: str = "") -> None:
        """Let a slot stand for an adapter's own name, from the next request on.

        Refused where its mark is another one than `seen`: somebody has set it since.
        """
        self._run("set_slot", slot, name, seen)

    def mark(self, slot: str) -> str:
        """Return what tells a slot's link from each one before it."""
        return str(self._run("mark", slot))

    def clear_slot(self, slot: str, seen: str = "") -> None:
        """Let a slot stand for nothing; refused as by `set_slot`."""
        self._run("clear_slot", slot, seen)

    def names(self) -> Mapping[str, str]:
        """Return the digest that each adapter's own name stands for."""
        return cast(Mapping[str, str], self._run("names"))

    def slots(self) -> Mapping[str, str]:
        """Return the adapter's own name that each slot stands for."""
        return cast(Mapping[str, str], self._run("slots"))

    def contents(self) -> Mapping[str, Mapping[str, str]]:
        """Return `digests` (folder to the digest of what it holds), `names`, `slots`, `foreign`."""
        return cast(Mapping[str, Mapping[str, str]], self._run("contents"))

    def prune(self, keep: Sequence[str]) -> None:
        """Remove adapters but for the digests in `keep` and those that a slot stands for."""
        self._run("prune", *keep)

    def _run(self, command: str, *arguments: str, adapter: Path | None = None) -> object:
        answer = self.transport.run(command, *arguments, adapter=adapter)
        if "refused" in answer:
            raise LoraAssetsError(
                f"{self.transport}: {answer['refused']}", "Deploy that model version again."
            )
        if "failed" in answer:
            raise LoraAssetsError(
                f"Can't change {self.transport} ({answer['failed']})",
                "Free space there or correct the permissions; nothing was changed.",
            )
        return answer["done"]


def shared_folder(path: str) -> ReplicaFolder:
    """Return a folder that this process and its replicas see under one path."""
    return ReplicaFolder(SharedFolder(path))
