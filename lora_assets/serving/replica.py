"""One vLLM server, through its HTTP API."""

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from pydantic import AliasPath, BaseModel, Field

from lora_assets.errors import LoraAssetsError
from lora_assets.records import Record
from lora_assets.records.base_model import PROMPTS, NextToken, bare
from lora_assets.records.served import Served, ServerLimits
from lora_assets.serving import http_client
from lora_assets.serving.replica_folder import ReplicaFolder
from lora_assets.serving.vllm_plugin.adapters_folder import is_name
from lora_assets.serving.vllm_plugin.guard import ADMIN_KEY
from lora_assets.serving.vllm_plugin.slots import BASE_HEADER, FOLDER_HEADER

_Body = Mapping[str, Any] | None
_LOAD, _UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
_GREEDY = {"temperature": 0, "logprobs": 1}
_SECONDS_TO_CONNECT = 2


class Completion(Record):
    """One greedy answer: its text, its tokens' log-probabilities, its latency in seconds."""

    text: str
    logprobs: tuple[float, ...]
    latency: float


class Listing(Record):
    """What a server says it serves: `adapters` maps names, slots among them, to folders.

    `base_names` are those of its base model: served name and source; `base_identity` is its
    digest or commit. `slots_folder` is the folder whose slots it reads. Both are None for a server
    without `SlotMiddleware`, whose slots have to be loaded one by one. `max_model_len` are the
    tokens of a prompt with its answer; None where the server does not say.
    """

    base_names: tuple[str, ...]
    adapters: Mapping[str, str]
    slots_folder: str | None
    base_identity: str | None = None
    max_model_len: int | None = None

    @property
    def base_model(self) -> str:
        """The name that the base model answers to."""
        return self.base_names[0]


class _Model(BaseModel):
    id: str
    root: str
    parent: str | None = None
    max_model_len: int | None = None


class _Models(BaseModel):
    data: list[_Model]


class _Completion(BaseModel):
    text: str = Field(validation_alias=AliasPath("choices", 0, "text"))
    logprobs: tuple[float, ...] = Field(
        validation_alias=AliasPath("choices", 0, "logprobs", "token_logprobs")
    )


@dataclass(frozen=True)
class Replica:
    """A server at `url`, which reads its adapters from `folder`.

    `pod` is the pod that it runs in, and its node; empty outside Kubernetes. Requests are given
    up after `timeout` seconds; all errors are LoraAssetsError. Adapters are loaded and unloaded
    with `admin_key`, where there is one.
    """

    url: str
    api_key: str = field(repr=False)
    timeout: float
    folder: ReplicaFolder
    pod: str = ""
    admin_key: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """What verdicts and tables call it: its pod, since an address is gone tomorrow."""
        return self.pod or self.url

    def is_down(self) -> bool:
        """Return whether nothing listens at its address: then no client gets an answer either."""
        url = httpx.URL(self.url)
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            socket.create_connection((url.host, port), _SECONDS_TO_CONNECT).close()
        except OSError as error:
            return isinstance(error, ConnectionRefusedError)
        return False

    def listing(self) -> Listing:
        """Return what it serves now."""
        reply = self._send("GET", "/v1/models")
        models = http_client.read(reply, _Models).data
        base = next((model for model in models if model.parent is None), None)
        if base is None:
            raise LoraAssetsError(f"{self.name} lists no base model", "Correct --vllm-url.")
        return Listing(
            base_names=(base.id, base.root),
            adapters={model.id: model.root for model in models if model.parent is not None},
            slots_folder=reply.headers.get(FOLDER_HEADER),
            base_identity=reply.headers.get(BASE_HEADER),
            max_model_len=base.max_model_len,
        )

    def loaded(self) -> Mapping[str, str]:
        """Return the adapters and slots that it serves: name to folder."""
        return self.listing().adapters

    def digests(self) -> Mapping[str, str]:
        """Return the adapters and slots that it serves as digests.

        One that lies elsewhere than in its folder has its whole path instead: `…/<digest>` of
        another place is not what was deployed.
        """
        folder = Path(self.folder.path)
        return {
            name: path.name if path.parent == folder else f"{path.parent}/{path.name}"
            for name, path in ((name, Path(root)) for name, root in self.loaded().items())
        }

    def served(self) -> Served:
        """Return what it serves as digests, the bytes of its folder read again."""
        loaded = self.digests()
        contents = self.folder.contents()
        digests = contents["digests"]
        every = {*(each for each in loaded.values() if "/" not in each), *digests}
        return Served(
            replica=self.name,
            adapters=loaded,
            damaged=tuple(sorted(digest for digest in every if digests.get(digest) != digest)),
            foreign=tuple(contents["foreign"]),
            slots=contents["slots"],
        )

    def limits(self) -> ServerLimits:
        """Return what it can take, after one token: vLLM gives `max_loras` only then."""
        listing = self.listing()
        self.complete(listing.base_model, "a", 1)
        try:
            max_loras = [
                int(sample.labels["max_lora"])
                for family in text_string_to_metric_families(self.metrics())
                for sample in family.samples
                if sample.name == "vllm:lora_requests_info"
            ]
        except (ValueError, KeyError):
            raise LoraAssetsError(
                f"{self.url}/metrics does not answer as vLLM does", "Correct --vllm-url."
            ) from None
        # Without a name there is nothing to unload: 400 where the route is, 404 where it is not.
        unload = self._request("POST", _UNLOAD, {"lora_name": ""})
        return ServerLimits(
            base_names=listing.base_names,
            runtime_loading=unload.status_code != HTTPStatus.NOT_FOUND,
            max_loras=next(iter(max_loras), None),
        )

    def load(self, name: str, folder: str) -> None:
        """Serve the adapter in `folder` as `name`; refused when `name` is another adapter's."""
        if not is_name(name):
            raise LoraAssetsError(
                f"{name!r} can't name an adapter or a slot",
                "Use letters, digits, '.', '_' and '-', beginning with a letter or digit.",
            )
        there = self.loaded().get(name)
        if there == folder:
            return
        if there is not None:
            raise LoraAssetsError(
                f"{self.name} already serves {there} as {name}",
                f"Unload {name} from that replica.",
            )
        body = {"lora_name": name, "lora_path": folder}
        self._send("POST", _LOAD, body)
        if self.loaded().get(name) != folder:
            raise LoraAssetsError(
                f"{self.name} said that it loaded {name}, but does not list it",
                "Look into that replica's log.",
            )

    def unload(self, name: str) -> None:
        """Stop serving `name`; fine when it is not there."""
        if name in self.loaded():
            self._send("POST", _UNLOAD, {"lora_name": name})

    def complete(self, model: str, prompt: str, max_tokens: int) -> Completion:
        """Return one greedy completion."""
        body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, **_GREEDY}
        started = perf_counter()
        reply = self._send("POST", "/v1/completions", body)
        latency = perf_counter() - started
        return Completion(**dict(http_client.read(reply, _Completion)), latency=latency)

    def base_answers(self, base_model: str) -> Sequence[NextToken]:
        """Return the likeliest token of its base model after each of base_model.PROMPTS."""
        answers = (self.complete(base_model, prompt, 1) for prompt in PROMPTS)
        return [NextToken(text=bare(each.text), logprob=sum(each.logprobs)) for each in answers]

    def metrics(self) -> str:
        """Return the server's metrics in Prometheus's text format."""
        return self._send("GET", "/metrics").text

    def _send(self, method: str, path: str, body: _Body = None) -> httpx.Response:
        reply = self._request(method, path, body)
        if reply.is_error:
            raise http_client.refused(reply)
        return reply

    def _request(self, method: str, path: str, body: _Body = None) -> httpx.Response:
        server, key = http_client.VLLM, self.api_key
        if path in (_LOAD, _UNLOAD) and self.admin_key:
            server, key = replace(server, key_setting=ADMIN_KEY), self.admin_key
        if self.pod:
            server = replace(server, name=f"vLLM in {self.pod}")
        return http_client.send(self.url, self.timeout, key, server, method, path, body)
