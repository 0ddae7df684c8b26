"""All vLLM replicas: what they serve, changed on all of them or on none."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
from pydantic import Field

from lora_assets.errors import LoraAssetsError
from lora_assets.records.model_version import Alias
from lora_assets.records.served import AdapterShape
from lora_assets.serving.base_shapes import base_modules
from lora_assets.serving.each_replica import on_each
from lora_assets.serving.http_client import open_client
from lora_assets.serving.preflight import obstacles
from lora_assets.serving.replica import Replica
from lora_assets.serving.replica_folder import ReplicaFolder, SharedFolder, once_each
from lora_assets.serving.switch import load, renew
from lora_assets.serving.vllm_plugin.adapters_folder import NAME

LIVE_SLOT = "aws-rag-qa-live"
CANDIDATE_SLOT = "aws-rag-qa-candidate"
"""What clients call (specification, slot-name, candidate-adapter, live-adapter)."""
SLOT_PATTERN = f"^{NAME}$"


class Fleet(dg.ConfigurableResource[Any]):
    """Every vLLM replica behind `vllm_url`.

    The replicas are the ready endpoints of the Service `service` (namespace/name), or the ready
    pods of `pod_selector` (namespace/labels), or `replica_urls`, or the ready pods of
    `deployment` in `namespace`, or `vllm_url` alone. Pods get their adapters copied into
    `adapters_dir`; for URLs, it is a folder that this process and all replicas see under the
    same path. `timeout` bounds each request, in seconds. A fleet that `shares_machine` with
    trainings answers as fast as they let it.
    """

    vllm_url: str
    adapters_dir: str
    replica_urls: list[str] = Field(default_factory=list)
    service: str = ""
    pod_selector: str = ""
    pod_port: int = 8000
    container: str = ""
    deployment: str = ""
    namespace: str = ""
    live_slot: str = LIVE_SLOT
    candidate_slot: str = CANDIDATE_SLOT
    base_model: str = ""
    max_lora_rank: int = 32
    api_key: str = Field("", repr=False)
    timeout: float = 60.0
    shares_machine: bool = False

    @property
    def replicas(self) -> Sequence[Replica]:
        """The servers that count: a pod that is not ready gets its adapters before it is."""
        if self.service or self.pod_selector or (self.deployment and not self.replica_urls):
            return self._pods()
        urls = self.replica_urls or [self.vllm_url]
        return [self._replica(url.rstrip("/"), SharedFolder(self.adapters_dir)) for url in urls]

    @property
    def slots(self) -> Mapping[Alias, str]:
        """The slot that serves an alias, for those aliases that have one."""
        return {"live": self.live_slot, "staged": self.candidate_slot}

    def client(self) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        """An HTTP client for inference through `vllm_url`."""
        return open_client(self.vllm_url, self.timeout, self.api_key or None)

    def preflight(self, adapter: AdapterShape) -> None:
        """Refuse an adapter that some replica can't take, naming the server's flag to change."""
        modules = base_modules(self.base_model)

        def check(replica: Replica) -> None:
            found = obstacles(adapter, replica.limits(), self.max_lora_rank, modules)
            if found:
                raise LoraAssetsError(
                    f"{replica.url} can't take the adapter: {'; '.join(found)}",
                    "Nothing was copied; change that and deploy again.",
                )

        on_each(self.replicas, check)

    def place(self, source: Path, digest: str) -> None:
        """Copy an adapter to every replica's folder, where its digest is taken again."""
        folders = once_each(replica.folder for replica in self.replicas)
        on_each(folders, lambda folder: folder.place(source, digest))

    def holds(self, digest: str) -> bool:
        """Whether every replica's folder has the adapter, its bytes as they should be."""
        folders = once_each(replica.folder for replica in self.replicas)
        return all(folder.intact(digest) for folder in folders)

    def load(self, name: str, digest: str, prompts: Sequence[str]) -> None:
        """Serve the adapter `digest` on every replica under its own name, or on none.

        Its bytes are verified where they lie first. Its answers to `prompts` must differ from
        the base model's: an adapter that loaded and changes nothing is refused.
        """
        load(self.replicas, name, digest, prompts)

    def renew_slot(self, slot: str, name: str, digest: str, prompts: Sequence[str]) -> None:
        """Point `slot` at the adapter `digest`, loaded as `name`, on every replica or on none.

        The log-probabilities of the slot's answers to `prompts` must equal those of `name`.
        """
        renew(self.replicas, slot, name, digest, prompts)

    def retire(self, keep: Sequence[str]) -> None:
        """Unload and remove adapters but for the digests in `keep` and those in a slot."""
        replicas = self.replicas
        kept: dict[ReplicaFolder, set[str]] = {each.folder: set(keep) for each in replicas}

        def unload(replica: Replica) -> None:
            in_slots = replica.folder.slots().values()
            for name, folder in replica.loaded().items():
                digest = Path(folder).name
                if not name.endswith(digest[:12]) or name in in_slots:
                    kept[replica.folder].add(digest)
                elif digest not in keep:
                    replica.unload(name)

        on_each(replicas, unload)
        on_each(list(kept), lambda folder: folder.prune(sorted(kept[folder])))

    def serving(self, name: str) -> Mapping[str, str | None]:
        """The digest that each replica serves as `name`, by its URL; None for nothing."""
        found: dict[str, str | None] = {}

        def look(replica: Replica) -> None:
            root = replica.loaded().get(name)
            found[replica.url] = Path(root).name if root is not None else None

        on_each(self.replicas, look)
        return found

    def without_slots(self) -> Sequence[str]:
        """The replicas that lack SlotMiddleware: renewing a slot leaves a gap there."""
        return [replica.url for replica in self.replicas if replica.listing().slots_folder is None]

    def _pods(self) -> Sequence[Replica]:
        # Kubernetes' client takes a second to import, which nobody else should wait for.
        from lora_assets.serving.discovery import (
            from_deployment,
            from_selector,
            from_service,
        )
        from lora_assets.serving.pod_exec import PodFolder

        namespace, _, name = (self.service or self.pod_selector).partition("/")
        if self.service:
            found = from_service(namespace, name)
        elif self.pod_selector:
            found = from_selector(namespace, name, self.pod_port)
        else:
            found = from_deployment(self.namespace, self.deployment, self.pod_port)
        container = self.container or None
        return [
            self._replica(pod.url, PodFolder(self.adapters_dir, pod.namespace, pod.pod, container))
            for pod in found
            if pod.ready
        ]

    def _replica(self, url: str, folder: ReplicaFolder) -> Replica:
        return Replica(url, self.api_key, self.timeout, folder)
