"""All vLLM replicas, and the folder that their adapters lie in."""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
from filelock import FileLock
from pydantic import Field

from lora_assets.engines import adapter_files
from lora_assets.engines.openai_http import open_client
from lora_assets.errors import LoraAssetsError
from lora_assets.gates.same_weights import same_logprobs
from lora_assets.resources.replica import Replica, checked_name

SLOTS = "slots"
PROBE_TOKENS = 16


class Fleet(dg.ConfigurableResource[Any]):
    """Every vLLM replica behind `vllm_url`; `replica_urls` names them (default: it alone).

    `adapters_dir` is one folder that this process and all replicas see under the same path:
    `<digest>/` holds an adapter, `slots/<name>` links a slot to its digest folder. `timeout`
    bounds each request, in seconds.
    """

    vllm_url: str
    adapters_dir: str
    replica_urls: list[str] = Field(default_factory=list)
    api_key: str = Field("", repr=False)
    timeout: float = 60.0

    @property
    def replicas(self) -> Sequence[Replica]:
        """The servers, one by one."""
        urls = self.replica_urls or [self.vllm_url]
        return [Replica(url.rstrip("/"), self.api_key, self.timeout) for url in urls]

    def client(self) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        """An HTTP client for inference through `vllm_url`."""
        return open_client(self.vllm_url, self.timeout, self.api_key or None)

    def folder(self, digest: str) -> Path:
        """Where the adapter with this digest lies."""
        return Path(self.adapters_dir) / digest

    def place(self, source: Path, digest: str) -> None:
        """Copy a verified adapter to its digest folder: aside, verified again, then renamed."""
        target = self.folder(digest)
        parent = target.parent
        try:
            parent.mkdir(parents=True, exist_ok=True)
            with FileLock(parent / ".placing"):
                if target.exists():
                    adapter_files.verify(target, digest)
                    return
                with tempfile.TemporaryDirectory(dir=parent, prefix=".incoming-") as aside:
                    copy = Path(aside) / digest
                    shutil.copytree(source, copy)
                    adapter_files.verify(copy, digest)
                    copy.rename(target)
        except OSError as error:
            raise LoraAssetsError(
                f"Can't copy adapter {digest[:12]} to {parent} ({error.strerror or error})",
                "Free space there or mend the permissions; nothing was changed.",
            ) from None

    def load(self, name: str, digest: str) -> None:
        """Have every replica serve the adapter `digest` as `name`, its bytes checked first."""
        folder = self.folder(digest)
        adapter_files.verify(folder, digest)
        self._each(lambda replica: replica.load(name, str(folder)))

    def unload(self, name: str) -> None:
        """Remove `name` from every replica; fine where it is not loaded."""
        self._each(lambda replica: replica.unload(name))

    def renew_slot(self, slot: str, name: str, digest: str, prompts: Sequence[str]) -> None:
        """Point `slot` at the adapter `digest`, which is loaded as `name`, and prove it.

        The slot's link is replaced in one step, then the slot is unloaded: the next request
        for it resolves the link again, so that none meets a 404. The log-probabilities of the
        slot's answers to `prompts` must then equal those of `name`.
        """
        folder = str(self.folder(digest))
        self.link(slot, digest)

        def renew(replica: Replica) -> None:
            if replica.loaded().get(slot) != folder:
                replica.unload(slot)
            _probe(replica, slot, name, prompts)
            if (found := replica.loaded().get(slot)) != folder:
                raise LoraAssetsError(
                    f"{replica.url} serves {found or 'nothing'} as {slot}, expected {folder}",
                    "Run this again; if it stays so, restart that replica.",
                )

        self._each(renew)

    def slots(self) -> Mapping[str, str]:
        """What the slots' links point at: slot to digest."""
        links = Path(self.adapters_dir) / SLOTS
        if not links.is_dir():
            return {}
        return {link.name: link.readlink().name for link in sorted(links.iterdir())}

    def link(self, slot: str, digest: str) -> None:
        """Point a slot's link at an adapter, in one step."""
        links = Path(self.adapters_dir) / SLOTS
        link = links / checked_name(slot)
        links.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.adapters_dir, prefix=".incoming-") as aside:
            made = Path(aside) / slot
            made.symlink_to(Path(os.pardir) / digest)
            made.replace(link)

    def _each(self, act: Callable[[Replica], None]) -> None:
        """Run `act` on all replicas at once; raises when it failed on one, after all are done."""
        replicas = self.replicas
        with ThreadPoolExecutor(len(replicas)) as pool:
            for done in [pool.submit(act, replica) for replica in replicas]:
                done.result()


def _probe(replica: Replica, slot: str, name: str, prompts: Sequence[str]) -> None:
    for prompt in prompts:
        meant = replica.complete(name, prompt, PROBE_TOKENS)
        found = replica.complete(slot, prompt, PROBE_TOKENS)
        if not same_logprobs(meant.logprobs, found.logprobs):
            raise LoraAssetsError(
                f"{replica.url} answers as {slot} with other weights than as {name}",
                "Its cache mixes adapters; restart that replica and run this again.",
            )
