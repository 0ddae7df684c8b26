"""vLLM's HTTP API over the engine and the adapters."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST

from lora_assets.embedded.server.adapters import Adapters
from lora_assets.embedded.server.api_error import ApiError, add_error_handlers, internal_error
from lora_assets.embedded.server.batching import Engine
from lora_assets.embedded.server.calls import Asked, Call, Delta, EngineStopped
from lora_assets.embedded.server.options import ServerOptions
from lora_assets.embedded.server.prompts import Prompts
from lora_assets.embedded.server.protocol import (
    ChatRequest,
    CompletionRequest,
    LoadRequest,
    UnloadRequest,
)
from lora_assets.embedded.server.replies import ChatReply, CompletionReply, Json, usage
from lora_assets.serving.vllm_plugin.base_files import digest_base
from lora_assets.serving.vllm_plugin.guard import Guard
from lora_assets.serving.vllm_plugin.slots import SlotMiddleware

VLLM_API = "0.32.0"
_CLIENT_LEFT = 499
_NAN = "The model's logits are NaN."
_STOPPED = "EngineCore encountered an issue. See stack trace (above) for the root cause."


def create_app(engine: Engine, options: ServerOptions, judge: FastAPI | None = None) -> FastAPI:
    """Return the server's app; a `judge` with a chat API of its own is mounted under `/judge`.

    `app.state.adapters` are the adapters that it has loaded.
    """
    app = FastAPI(title="lora-assets embedded model server", docs_url=None, redoc_url=None)
    decoder = engine.decoder
    prompts = Prompts(options.base_model, decoder.max_length, decoder.vocabulary)
    adapters = Adapters(
        decoder, options.served_model_name, options.adapters_dir, options.max_lora_rank
    )
    app.state.adapters = adapters
    _add_generation(app, engine, adapters, prompts)
    _add_administration(app, engine, adapters, options)
    add_error_handlers(app)

    @app.exception_handler(EngineStopped)
    async def stopped(_: Request, error: EngineStopped) -> Response:
        return internal_error(_STOPPED).reply()

    if judge is not None:
        app.mount("/judge", judge)
    base = digest_base(options.base_model)
    own_alone = bool(options.admin_key)
    app.add_middleware(
        SlotMiddleware, folder=options.adapters_dir, base=base, loads_own_alone=own_alone
    )
    app.add_middleware(Guard, keys=options.keys, below=["/judge/"])
    return app


def _add_generation(app: FastAPI, engine: Engine, adapters: Adapters, prompts: Prompts) -> None:
    @app.post("/v1/completions")
    async def complete(body: CompletionRequest, request: Request) -> Response:
        arrived = time.perf_counter()
        adapter = await adapters.find(body.model)
        prompt = prompts.of_completion(body.prompt)
        most = prompts.most_tokens(prompt, 16 if body.max_tokens is None else body.max_tokens)
        asked = Asked(prompt, most, adapter, body.ignore_eos, body.logprobs, bool(body.stream))
        reply = CompletionReply(adapters.name_of(adapter), prompts.tokenizer, body.logprobs)
        return await _answer(engine.submit(asked, arrived), reply, body.wants_usage, request)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        arrived = time.perf_counter()
        adapter = await adapters.find(body.model)
        prompt = prompts.of_chat(body.messages)
        most = prompts.most_tokens(prompt, body.token_limit)
        asked = Asked(prompt, most, adapter, body.ignore_eos, stream=bool(body.stream))
        reply = ChatReply(adapters.name_of(adapter))
        return await _answer(engine.submit(asked, arrived), reply, body.wants_usage, request)


def _add_administration(
    app: FastAPI, engine: Engine, adapters: Adapters, options: ServerOptions
) -> None:
    @app.get("/health")
    async def health() -> Response:
        return Response(status_code=200 if engine.alive else 503)

    @app.get("/version")
    async def version() -> Json:
        return {"version": VLLM_API}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(engine.metrics_text(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models")
    async def models() -> Json:
        base = options.served_model_name
        cards = [_card(base, str(options.base_model), None, engine.decoder.max_length)]
        cards += [_card(name, it.root, base, None) for name, it in adapters.loaded.items()]
        return {"object": "list", "data": cards}

    @app.post("/v1/load_lora_adapter")
    async def load(body: LoadRequest) -> Response:
        return Response(await adapters.load(body.lora_name, body.lora_path, body.load_inplace))

    @app.post("/v1/unload_lora_adapter")
    async def unload(body: UnloadRequest) -> Response:
        return Response(await adapters.unload(body.lora_name))


def _card(name: str, root: str, parent: str | None, max_length: int | None) -> Json:
    return {
        "id": name,
        "object": "model",
        "created": int(time.time()),
        "owned_by": "lora-assets",
        "root": root,
        "parent": parent,
        "max_model_len": max_length,
    }


async def _answer(
    call: Call, reply: CompletionReply | ChatReply, wants_usage: bool, request: Request
) -> Response:
    if call.asked.stream:
        return StreamingResponse(_events(call, reply, wants_usage), media_type="text/event-stream")
    delta = await _unless_client_leaves(call, request)
    if delta is None:
        return Response(status_code=_CLIENT_LEFT)
    if delta.finish_reason == "error":
        raise internal_error(_NAN)
    return JSONResponse(reply.whole(delta, _counts(call)))


async def _unless_client_leaves(call: Call, request: Request) -> Delta | None:
    async def answer() -> Delta:
        return await anext(aiter(call))

    async def leave() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answering, leaving = asyncio.create_task(answer()), asyncio.create_task(leave())
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        return answering.result() if answering.done() else None
    finally:
        call.abandon()
        answering.cancel()
        leaving.cancel()


async def _events(
    call: Call, reply: CompletionReply | ChatReply, wants_usage: bool
) -> AsyncIterator[str]:
    try:
        opening = reply.opening
        async for delta in call:
            if delta.finish_reason == "error":
                raise internal_error(_NAN)
            yield "".join(_event(chunk) for chunk in (*opening, reply.chunk(delta)))
            opening = ()
        if wants_usage:
            yield _event(reply.closing(_counts(call)))
    except ApiError as error:
        yield _event(error.body())
    except EngineStopped:
        yield _event(internal_error(_STOPPED).body())
    finally:
        call.abandon()
    yield "data: [DONE]\n\n"


def _counts(call: Call) -> Json:
    return usage(len(call.asked.prompt), len(call.tokens))


def _event(chunk: Json) -> str:
    return f"data: {json.dumps(chunk, ensure_ascii=False, separators=(',', ':'))}\n\n"
