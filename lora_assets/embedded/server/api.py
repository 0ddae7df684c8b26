"""vLLM's HTTP API over the engine and the adapters."""

import asyncio
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from lora_assets.embedded.server.adapters import Adapters
from lora_assets.embedded.server.api_error import ApiError
from lora_assets.embedded.server.batching import Engine
from lora_assets.embedded.server.calls import Call, Delta, EngineStopped
from lora_assets.embedded.server.options import ServerOptions
from lora_assets.embedded.server.prompts import Prompts
from lora_assets.embedded.server.protocol import (
    ChatRequest,
    CompletionRequest,
    LoadRequest,
    UnloadRequest,
)
from lora_assets.embedded.server.replies import ChatReply, CompletionReply, Json, usage
from lora_assets.serving.vllm_plugin.slots import SlotMiddleware

VLLM_API = "0.32.0"
_CLIENT_LEFT = 499


def create_app(engine: Engine, options: ServerOptions, judge: FastAPI | None = None) -> FastAPI:
    """The server's app; a `judge` with a chat API of its own is mounted under `/judge`.

    The adapters that it holds are `app.state.adapters`.
    """
    app = FastAPI(title="lora-assets embedded model server", docs_url=None, redoc_url=None)
    decoder = engine.decoder
    prompts = Prompts(options.base_model, decoder.max_length, decoder.vocabulary)
    adapters = Adapters(
        decoder, options.served_model_name, options.adapters_dir, options.max_lora_rank
    )
    app.state.adapters = adapters
    _add_generation(app, engine, adapters, prompts, options.served_model_name)
    _add_administration(app, engine, adapters, options)
    _add_errors(app)
    if judge is not None:
        app.mount("/judge", judge)
    if options.api_key is not None:
        app.add_middleware(_Authentication, api_key=options.api_key)
    app.add_middleware(SlotMiddleware, folder=options.adapters_dir)
    return app


def _add_generation(
    app: FastAPI, engine: Engine, adapters: Adapters, prompts: Prompts, base_name: str
) -> None:
    @app.post("/v1/completions")
    async def complete(body: CompletionRequest, request: Request) -> Response:
        arrived = time.perf_counter()
        adapter = await adapters.find(body.model)
        tokens, texts = prompts.of_completion(body)
        limit = 16 if body.max_tokens is None else body.max_tokens
        echo = bool(body.echo)
        sampling = prompts.sampling(body, tokens, limit, body.logprobs, echo)
        reply = CompletionReply(
            base_name if adapter is None else adapter.name,
            prompts.tokenizer,
            body.logprobs,
            list(zip(tokens, texts, strict=True)) if echo else (),
            echo_only=echo and limit == 0,
        )
        call = engine.submit(tokens, sampling, adapter, bool(body.stream), arrived)
        return await _answer(call, reply, sum(map(len, tokens)), body.wants_usage, request)

    @app.post("/v1/chat/completions")
    async def chat(body: ChatRequest, request: Request) -> Response:
        arrived = time.perf_counter()
        adapter = await adapters.find(body.model)
        tokens = prompts.of_chat(body)
        alternatives = (body.top_logprobs or 0) if body.logprobs else None
        sampling = prompts.sampling(body, [tokens], body.token_limit, alternatives)
        name = base_name if adapter is None else adapter.name
        reply = ChatReply(name, prompts.tokenizer, alternatives)
        call = engine.submit([tokens], sampling, adapter, bool(body.stream), arrived)
        return await _answer(call, reply, len(tokens), body.wants_usage, request)


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
        done = await adapters.load(body.lora_name, body.lora_path, body.load_inplace)
        return Response(done)

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
    call: Call,
    reply: CompletionReply | ChatReply,
    prompt_tokens: int,
    wants_usage: bool,
    request: Request,
) -> Response:
    if call.stream:
        events = _events(call, reply, prompt_tokens, wants_usage)
        return StreamingResponse(events, media_type="text/event-stream")
    deltas = await _unless_client_leaves(call, request)
    if deltas is None:
        return Response(status_code=_CLIENT_LEFT)
    if any(delta.finish_reason == "error" for delta in deltas):
        raise _nan_error()
    counts = usage(prompt_tokens, sum(len(delta.tokens) for delta in deltas))
    return JSONResponse(reply.whole(deltas, counts))


async def _unless_client_leaves(call: Call, request: Request) -> list[Delta] | None:
    async def collect() -> list[Delta]:
        return [delta async for delta in call]

    async def leave() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    collecting, leaving = asyncio.create_task(collect()), asyncio.create_task(leave())
    try:
        await asyncio.wait((collecting, leaving), return_when=asyncio.FIRST_COMPLETED)
        return collecting.result() if collecting.done() else None
    finally:
        call.abandon()
        collecting.cancel()
        leaving.cancel()


async def _events(
    call: Call, reply: CompletionReply | ChatReply, prompt_tokens: int, wants_usage: bool
) -> AsyncIterator[str]:
    generated = 0
    try:
        opening = [*reply.opening()]
        async for delta in call:
            if delta.finish_reason == "error":
                raise _nan_error()
            generated += len(delta.tokens)
            yield "".join(_event(chunk) for chunk in (*opening, reply.chunk(delta)))
            opening = []
        if wants_usage:
            yield _event(reply.closing(usage(prompt_tokens, generated)))
    except ApiError as error:
        yield _event(error.body())
    except EngineStopped:
        yield _event(_stopped_error().body())
    finally:
        call.abandon()
    yield "data: [DONE]\n\n"


def _event(chunk: Json) -> str:
    return f"data: {json.dumps(chunk, ensure_ascii=False, separators=(',', ':'))}\n\n"


def _nan_error() -> ApiError:
    return _internal("The model's logits are NaN.")


def _stopped_error() -> ApiError:
    return _internal("EngineCore encountered an issue. See stack trace (above) for the root cause.")


def _internal(message: str) -> ApiError:
    return ApiError(message, "InternalServerError", HTTPStatus.INTERNAL_SERVER_ERROR)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> Response:
        return JSONResponse(error.body(), error.status)

    @app.exception_handler(EngineStopped)
    async def stopped(_: Request, error: EngineStopped) -> Response:
        return JSONResponse(_stopped_error().body(), HTTPStatus.INTERNAL_SERVER_ERROR)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        found = error.errors()
        count = "1 validation error" if len(found) == 1 else f"{len(found)} validation errors"
        first = found[0]
        where = ".".join(str(part) for part in first["loc"] if "[" not in str(part))
        told = ApiError(f"{count}: {where}: {first['msg']}", "Bad Request", param=where)
        return JSONResponse(told.body(), HTTPStatus.BAD_REQUEST)

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        status = HTTPStatus(error.status_code)
        return JSONResponse(ApiError(error.detail, status.phrase, status).body(), status)


class _Authentication:
    """Asks for the API key on `/v1` and on the judge's `/v1`, as vLLM does on its own."""

    def __init__(self, app: ASGIApp, api_key: str) -> None:
        self._app = app
        self._wanted = hashlib.sha256(api_key.encode()).digest()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        guarded = scope["type"] == "http" and scope["path"].startswith(("/v1", "/judge/v1"))
        if guarded and scope["method"] != "OPTIONS" and not self._known(Headers(scope=scope)):
            refusal = JSONResponse({"error": "Unauthorized"}, HTTPStatus.UNAUTHORIZED)
            return refusal(scope, receive, send)
        return self._app(scope, receive, send)

    def _known(self, headers: Headers) -> bool:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = hashlib.sha256(key.encode()).digest()
        return scheme.lower() == "bearer" and secrets.compare_digest(given, self._wanted)
