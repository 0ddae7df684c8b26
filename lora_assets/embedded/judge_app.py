"""The lexical judge behind OpenAI's chat API."""

import json
import time
import uuid
from typing import Literal

from fastapi import FastAPI
from pydantic import BaseModel

from lora_assets.embedded.lexical_judge import grade_lexically
from lora_assets.embedded.server.api_error import ApiError, add_error_handlers, not_found
from lora_assets.embedded.server.replies import Json, usage
from lora_assets.judging.prompt import read_case

LEXICAL_JUDGE = "lexical-judge"


class _Message(BaseModel):
    role: Literal["system", "user", "assistant"]
    content: str


class _ChatRequest(BaseModel):
    model: str
    messages: list[_Message]
    stream: bool = False


def create_judge_app() -> FastAPI:
    """Return an app with /v1/models, /v1/chat/completions and /health, which holds no state.

    It answers chats whose last message is a judge's prompt. Other messages and streaming get
    400, other models 404, with OpenAI's error body.
    """
    app = FastAPI(title="lexical judge", openapi_url=None)
    add_error_handlers(app)

    @app.get("/health")
    async def health() -> None:
        return None

    @app.get("/v1/models")
    async def models() -> Json:
        model = {"id": LEXICAL_JUDGE, "object": "model", "owned_by": "lora-assets"}
        return {"object": "list", "data": [model]}

    @app.post("/v1/chat/completions")
    async def chat(request: _ChatRequest) -> Json:
        if request.model != LEXICAL_JUDGE:
            raise not_found(f"The model `{request.model}` does not exist.")
        if request.stream:
            raise ApiError("The lexical judge does not stream.")
        last = request.messages[-1] if request.messages else None
        case = read_case(last.content) if last is not None and last.role == "user" else None
        if last is None or case is None:
            raise ApiError("The last message is not a judge's prompt of lora-assets.")
        grade, reason = grade_lexically(
            case.context, case.question, case.question_type, case.reference_answer, case.answer
        )
        return _completion(last.content, json.dumps({"reason": reason, "grade": grade}))

    return app


def _completion(prompt: str, content: str) -> Json:
    """Return the reply's body; its usage counts words, as there is no tokenizer here."""
    message = {"role": "assistant", "content": content}
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": LEXICAL_JUDGE,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": usage(len(prompt.split()), len(content.split())),
    }
