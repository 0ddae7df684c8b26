"""Where the vLLM replicas are, and what they are to serve."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import dagster as dg
from pydantic import Field

from lora_assets.errors import LoraAssetsError
from lora_assets.records.model_version import Alias
from lora_assets.records.partition import model_of
from lora_assets.records.served import CANDIDATE_SLOT, LIVE_SLOT
from lora_assets.resources.one_model import partition_of_run
from lora_assets.serving.bounded_client import BoundedClient
from lora_assets.serving.http_client import open_client
from lora_assets.serving.on_each import on_each
from lora_assets.serving.replica import Replica
from lora_assets.serving.replica_folder import ReplicaFolder, shared_folder
from lora_assets.serving.replicas import Replicas
from lora_assets.serving.vllm_plugin.adapters_folder import NAME


class Fleet(dg.ConfigurableResource[Any]):
    """Every vLLM replica behind `vllm_url`.

    The replicas are the ready endpoints of the Service `service` (namespace/name), or the ready
    pods of `pod_selector` (namespace/labels), or `replica_urls`, or the ready pods of
    `deployment` in `namespace`, or `vllm_url` alone. Pods get their adapters copied into
    `adapters_dir`; for URLs, it is a folder that this process and all replicas see under the
    same path. `timeout` bounds each request, in seconds. `max_model_len` is
    what `vllm_url` says where it is 0. A fleet that `shares_machine` with
    trainings answers as fast as they let it. With fewer than `min_replicas` nothing is done.
    The slots are those of the deployment's own model. Another one, on whose partition a run is,
    has its own, and never gets `others_slots`.
    """

    vllm_url: str
    adapters_dir: str = Field(min_length=1)
    replica_urls: list[str] = Field(default_factory=list)
    service: str = ""
    pod_selector: str = ""
    pod_port: int = 8000
    container: str = ""
    deployment: str = ""
    namespace: str = ""
    min_replicas: int = Field(default=1, ge=1)
    live_slot: str = Field(LIVE_SLOT, pattern=f"^{NAME}$")
    candidate_slot: str = Field(CANDIDATE_SLOT, pattern=f"^{NAME}$")
    base_model: str = ""
    max_lora_rank: int = 32
    max_model_len: int = Field(default=0, ge=0)
    api_key: str = Field("", repr=False)
    admin_key: str = Field("", repr=False)
    timeout: float = 60.0
    shares_machine: bool = False
    others_slots: list[str] = Field(default_factory=list)

    def create_resource(self, context: dg.InitResourceContext) -> "Fleet":
        """Return the fleet with the slots of the model that the run's partition is of."""
        return self.of_model(model_of(partition_of_run(context) or "", own=""))

    def of_model(self, model: str) -> "Fleet":
        """Return the fleet with the slots of `model`; empty: of the deployment's own."""
        if not model:
            return self
        slots = {"live_slot": f"{model}-live", "candidate_slot": f"{model}-candidate"}
        return type(self)(**{**dict(self), **slots, "others_slots": [*self.slots.values()]})

    @property
    def slots(self) -> Mapping[Alias, str]:
        """The slot that serves an alias, for those aliases that have one."""
        return {"live": self.live_slot, "staged": self.candidate_slot}

    @property
    def address(self) -> str:
        """Where it is asked, as records, verdicts and the policy name it."""
        return self.vllm_url.rstrip("/")

    def client(self) -> AbstractAsyncContextManager[BoundedClient]:
        """Return an HTTP client for inference through `vllm_url`."""
        return open_client(self.vllm_url, self.timeout, self.api_key)

    def longest(self) -> tuple[int | None, str]:
        """Return the most tokens of a prompt with its answer, as set or as `vllm_url` tells.

        None where neither says it, with a line that says so: the fleet may be up later.
        """
        if self.max_model_len:
            return self.max_model_len, ""
        url, folder = self.address, shared_folder(self.adapters_dir)
        told, reason = None, f"vLLM at {url} does not tell it"
        try:
            told = self._replica(url, folder).listing().max_model_len
        except LoraAssetsError as error:
            reason = error.cause
        if told is not None:
            return told, ""
        return None, (
            f"rows are not measured against the server's max_model_len ({reason}): set "
            "VLLM_MAX_MODEL_LEN"
        )

    def discover(self) -> Replicas:
        """Return the replicas that are ready now, for one operation.

        A pod that is not ready gets its adapters before it is. Raise LoraAssetsError, naming the
        pods that are not, where fewer than `min_replicas` are ready.
        """
        if self.service or self.pod_selector or (self.deployment and not self.replica_urls):
            members, waiting = self._pods()
        else:
            urls = [url.rstrip("/") for url in self.replica_urls or [self.vllm_url]]
            folder = shared_folder(self.adapters_dir)
            members, waiting = [self._replica(url, folder) for url in urls], {}
        limits = (self.base_model, self.max_lora_rank, self.candidate_slot)
        others = tuple(self.others_slots)
        return self._enough(Replicas(tuple(members), *limits, waiting, others))

    def answering(self) -> Replicas:
        """Return them without those at whose address nothing listens: these are `waiting`, too.

        Where that leaves none, all are returned: whoever asks them says what is wrong.
        """
        found = self.discover()
        down = on_each(found.members, Replica.is_down)
        if all(down):
            return found
        up = tuple(each for each, is_down in zip(found.members, down, strict=True) if not is_down)
        gone = {f"{each.name} is down": None for each in found.members if each not in up}
        return self._enough(replace(found, members=up, waiting={**found.waiting, **gone}))

    def _enough(self, found: Replicas) -> Replicas:
        members = found.members
        if len(members) < self.min_replicas:
            names = ", ".join([*(f"{each.name} is ready" for each in members), *found.waiting])
            raise LoraAssetsError(
                f"{len(members)} of at least {self.min_replicas} vLLM replica(s) are ready "
                f"({names})",
                "Wait until the others are ready ('kubectl get pods'), or correct "
                "VLLM_MIN_REPLICAS.",
            )
        return found

    def _pods(self) -> tuple[Sequence[Replica], Mapping[str, ReplicaFolder | None]]:
        """Return the pods that are ready, and why each other one is not, as `Replicas.waiting`."""
        # Kubernetes' client takes a second to import, which nobody else should wait for.
        from lora_assets.serving import discovery, pod_exec

        namespace, _, name = (self.service or self.pod_selector).partition("/")
        if self.service:
            pods = discovery.from_service(namespace, name)
        elif self.pod_selector:
            pods = discovery.from_selector(namespace, name, self.pod_port)
        else:
            pods = discovery.from_deployment(self.namespace, self.deployment, self.pod_port)
        ready, waiting = [], {}
        for pod in pods:
            place = (self.adapters_dir, pod.namespace, pod.pod, self.container or None)
            folder = pod_exec.pod_folder(*place)
            if pod.state == "ready":
                ready.append(self._replica(pod.url, folder, pod.name))
            else:
                waiting[f"{pod.name} is {pod.state}"] = folder if pod.state == "not ready" else None
        return ready, waiting

    def _replica(self, url: str, folder: ReplicaFolder, pod: str = "") -> Replica:
        return Replica(url, self.api_key, self.timeout, folder, pod, self.admin_key)
