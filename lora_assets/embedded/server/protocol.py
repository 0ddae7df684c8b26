"""Requests as vLLM 0.32 takes them. What this server can't do is refused, never ignored."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

TokenId = Annotated[int, Field(ge=0)]
# Parameters of vLLM that change the answer, with the values at which they don't.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "top_k": (0, -1),
    "min_p": (0,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "min_tokens": (0,),
    "skip_special_tokens": (True,),
    "add_generation_prompt": (True,),
    "add_special_tokens": (True, False),
    "tool_choice": ("none",),
    "response_format": ({"type": "text"},),
}
_EMPTY = (
    *("suffix", "logit_bias", "use_beam_search", "stop_token_ids", "bad_words", "tools"),
    *("structured_outputs", "prompt_logprobs", "truncate_prompt_tokens", "allowed_token_ids"),
    *("include_stop_str_in_output", "continue_final_message", "chat_template", "logprob_token_ids"),
)


class StreamOptions(BaseModel):
    """`include_usage` adds a last chunk with the token counts."""

    include_usage: bool | None = False


class GenerationRequest(BaseModel):
    """What completions and chat completions share. Fields that vLLM ignores are ignored."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: list[str] | str | None = None
    ignore_eos: bool = False
    stream: bool | None = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _asks_for_what_there_is(self) -> "GenerationRequest":
        if self.stream_options is not None and not self.stream:
            raise ValueError("Stream options can only be defined when `stream=True`.")
        for name, value in (self.model_extra or {}).items():
            neutral = value is None or value in _NEUTRAL.get(name, (value,))
            if not neutral or (name in _EMPTY and value):
                raise ValueError(f"`{name}`={value!r} is not supported by the embedded server.")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class CompletionRequest(GenerationRequest):
    """POST /v1/completions."""

    prompt: (
        str
        | Annotated[list[str], Field(min_length=1)]
        | Annotated[list[TokenId], Field(min_length=1)]
        | Annotated[list[list[TokenId]], Field(min_length=1)]
    )
    max_tokens: int | None = 16
    logprobs: int | None = Field(None, ge=0)
    echo: bool | None = False


class TextPart(BaseModel):
    """A part of a message's content; the only kind that a text model reads."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One turn of a conversation."""

    role: str
    content: str | list[TextPart]

    @property
    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content)


class ChatRequest(GenerationRequest):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = False
    top_logprobs: int | None = Field(0, ge=0)

    @model_validator(mode="after")
    def _top_needs_logprobs(self) -> "ChatRequest":
        if self.top_logprobs and not self.logprobs:
            raise ValueError("when using `top_logprobs`, `logprobs` must be set to true.")
        return self

    @property
    def token_limit(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class LoadRequest(BaseModel):
    """POST /v1/load_lora_adapter."""

    lora_name: str
    lora_path: str
    load_inplace: bool = False


class UnloadRequest(BaseModel):
    """POST /v1/unload_lora_adapter."""

    lora_name: str
