"""The requests of vLLM 0.32 that its clients here send.

What this server can't do is refused, never ignored; parameters that vLLM itself ignores, or
that change nothing about a greedy answer (top_p, seed), are ignored.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_EMPTY: tuple[Any, ...] = (False, "", [], {})
# Parameters of vLLM that change a greedy answer, with the values beside null at which they don't.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("echo", "stop", "stop_token_ids", "bad_words", "suffix"), _EMPTY),
    **dict.fromkeys(("logit_bias", "allowed_token_ids", "use_beam_search"), _EMPTY),
    **dict.fromkeys(("include_stop_str_in_output", "logprob_token_ids"), _EMPTY),
    **dict.fromkeys(("return_token_ids", "return_tokens_as_token_ids", "prompt_embeds"), _EMPTY),
    **dict.fromkeys(("structured_outputs", "tools", "documents", "chat_template"), _EMPTY),
    **dict.fromkeys(("chat_template_kwargs", "continue_final_message", "logprobs"), _EMPTY),
    **dict.fromkeys(("prompt_logprobs", "truncate_prompt_tokens", "add_special_tokens"), ()),
    **dict.fromkeys(("frequency_penalty", "presence_penalty", "min_tokens", "top_logprobs"), (0,)),
    **dict.fromkeys(("n", "repetition_penalty"), (1,)),
    **dict.fromkeys(("skip_special_tokens", "add_generation_prompt"), (True,)),
    "tool_choice": ("none",),
    "response_format": ({"type": "text"},),
}


class StreamOptions(BaseModel):
    """`include_usage` adds a last chunk with the token counts."""

    include_usage: bool | None = False


class GenerationRequest(BaseModel):
    """What completions and chat completions share."""

    model_config = ConfigDict(extra="allow")

    model: str | None = None
    temperature: float | None = None
    ignore_eos: bool = False
    stream: bool | None = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="after")
    def _asks_for_what_there_is(self) -> "GenerationRequest":
        if self.temperature != 0:
            raise ValueError(
                "the embedded server answers greedily and does not sample: set `temperature` to 0"
                f" (it is {1 if self.temperature is None else self.temperature})"
            )
        if self.stream_options is not None and not self.stream:
            raise ValueError("Stream options can only be defined when `stream=True`.")
        for name, value in (self.model_extra or {}).items():
            if value is not None and value not in _NEUTRAL.get(name, (value,)):
                raise ValueError(f"`{name}`={value!r} is not supported by the embedded server.")
        return self

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class CompletionRequest(GenerationRequest):
    """POST /v1/completions, for one prompt."""

    prompt: str | list[Annotated[int, Field(ge=0)]]
    max_tokens: int | None = 16
    logprobs: int | None = Field(None, ge=0, le=20)


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
