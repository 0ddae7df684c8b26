"""A double of a vLLM server that misbehaves, over real HTTP; and any app on a port of its own."""

import asyncio
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from lora_assets.serving.vllm_plugin.slots import FOLDER_HEADER

BASE = "embedded-base"


@dataclass
class BrokenVllm:
    """What one server is and does wrong; `faults` maps a path to what it answers instead.

    A fault is a status, answered with `error_text`, or a body to answer with 200, or "hang".
    `waits` maps a path to what must be true before it is answered. With `several` each look at its
    metrics finds another process. Without faults it is a good server, where every adapter answers
    in a way of its own.
    """

    api_key: str = ""
    base: str = BASE
    max_lora: int | None = 8
    several: bool = False
    runtime_loading: bool = True
    slots_folder: str | None = None
    adapters: dict[str, str] = field(default_factory=dict)
    faults: dict[str, int | str] = field(default_factory=dict)
    error_text: str = "Internal Server Error"
    waits: dict[str, Callable[[], bool]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def app(self) -> Starlette:
        """The server, as it is now and as it is changed later."""
        answers = {
            "/v1/models": self._models,
            "/v1/completions": self._complete,
            "/v1/load_lora_adapter": self._load,
            "/v1/unload_lora_adapter": self._unload,
            "/metrics": self._metrics,
        }

        async def answer(request: Request) -> Response:
            path = request.url.path
            self.asked.append(path)
            if self.api_key and request.headers.get("authorization") != f"Bearer {self.api_key}":
                return JSONResponse({"error": "Unauthorized"}, 401)
            while path in self.waits and not self.waits[path]():
                await asyncio.sleep(0.005)
            fault = self.faults.get(path)
            if fault == "hang":
                while (await request.receive())["type"] != "http.disconnect":
                    pass
            if isinstance(fault, int):
                return PlainTextResponse(self.error_text, fault)
            if fault is not None:
                return PlainTextResponse(fault)
            if path.endswith("_lora_adapter") and not self.runtime_loading:
                return JSONResponse({"detail": "Not Found"}, 404)
            body = await request.json() if request.method == "POST" else {}
            return answers[path](body)

        return Starlette(routes=[Route(p, answer, methods=["GET", "POST"]) for p in answers])

    def _models(self, _: Mapping[str, Any]) -> Response:
        cards = [{"id": self.base, "root": self.base, "parent": None}]
        cards += [{"id": n, "root": f, "parent": self.base} for n, f in self.adapters.items()]
        headers = {FOLDER_HEADER: self.slots_folder} if self.slots_folder else {}
        return JSONResponse({"object": "list", "data": cards}, headers=headers)

    def _complete(self, body: Mapping[str, Any]) -> Response:
        model = body["model"]
        if model != self.base and model not in self.adapters:
            return JSONResponse({"error": {"message": f"`{model}` does not exist."}}, 404)
        weights = self.adapters.get(model, "")
        value = -1.0 - zlib.crc32(weights.encode())
        choice = {"text": weights, "logprobs": {"token_logprobs": [value] * body["max_tokens"]}}
        return JSONResponse({"choices": [choice]})

    def _load(self, body: Mapping[str, Any]) -> Response:
        if body["lora_name"] in self.adapters:
            return JSONResponse({"error": {"message": "has already been loaded"}}, 400)
        self.adapters[body["lora_name"]] = body["lora_path"]
        return PlainTextResponse("Success")

    def _unload(self, body: Mapping[str, Any]) -> Response:
        if not body["lora_name"]:
            return JSONResponse({"error": {"message": "'lora_name' needs to be provided"}}, 400)
        if self.adapters.pop(body["lora_name"], None) is None:
            return JSONResponse({"error": {"message": "cannot be found"}}, 404)
        return PlainTextResponse("Success")

    def _metrics(self, _: Mapping[str, Any]) -> Response:
        lines = ["# TYPE vllm:num_requests_running gauge", "vllm:num_requests_running 0"]
        if self.max_lora is not None:
            lines += [f'vllm:lora_requests_info{{max_lora="{self.max_lora}"}} 1.0']
        if self.several:
            lines += [f"process_start_time_seconds {len(self.asked)}"]
        return PlainTextResponse("\n".join([*lines, ""]))


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """An app on a free port of this machine, from when it answers; its URL."""
    config = uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            thread.join(0.005)
            assert thread.is_alive()
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
