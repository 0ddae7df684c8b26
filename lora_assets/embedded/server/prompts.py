"""Prompts and parameters of a request, turned into what the engine takes.

What can't be taken is refused with vLLM's words.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from lora_assets.embedded.server.api_error import ApiError
from lora_assets.embedded.server.protocol import ChatRequest, CompletionRequest, GenerationRequest
from lora_assets.embedded.server.sampling import Sampling

_MAX_LOGPROBS = 20


class Prompts:
    """A base model's tokenizer, chat template and length limit (in tokens)."""

    def __init__(self, folder: Path, max_length: int, vocabulary: int) -> None:
        self._chat: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.tokenizer: Tokenizer = self._chat.backend_tokenizer
        self.max_length = max_length
        self._vocabulary = vocabulary

    def of_completion(self, request: CompletionRequest) -> tuple[list[list[int]], list[str]]:
        """The prompts as token ids and as text."""
        prompts = request.prompt
        if isinstance(prompts, str) or isinstance(prompts[0], int):
            prompts = [prompts]  # type: ignore[assignment]
        tokens = [self._checked(self._encoded(prompt)) for prompt in prompts]
        texts = [
            prompt if isinstance(prompt, str) else self.tokenizer.decode(ids)
            for prompt, ids in zip(prompts, tokens, strict=True)
        ]
        return tokens, texts

    def of_chat(self, request: ChatRequest) -> list[int]:
        """The conversation in the base model's chat template, as token ids."""
        messages = [{"role": m.role, "content": m.text} for m in request.messages]
        try:
            text = self._chat.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            raise ApiError(str(error)) from None
        return self._checked(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def sampling(
        self,
        request: GenerationRequest,
        prompts: Sequence[Sequence[int]],
        limit: int | None,
        logprobs: int | None,
        echo: bool = False,
    ) -> Sampling:
        """How to answer; `limit` is the most tokens asked for, None for all there is room for."""
        _in_range(request, logprobs)
        if limit is not None and limit > self.max_length:
            raise ApiError(
                f"max_tokens={limit} cannot be greater than max_model_len={self.max_length}."
                " Please request fewer output tokens.",
                param="max_tokens",
            )
        if echo and limit == 0:
            limit = 1
        room = self.max_length - max(len(prompt) for prompt in prompts)
        most = room if limit is None else limit
        if min(most, room) < 1:
            raise ApiError(
                f"max_tokens must be at least 1, got {min(most, room)}.", param="max_tokens"
            )
        return Sampling(
            max_tokens=most,
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            seed=request.seed,
            stop=request.stops,
            ignore_eos=request.ignore_eos,
            logprobs=logprobs,
            prompt_logprobs=echo and logprobs is not None,
        )

    def _encoded(self, prompt: str | int | Sequence[int]) -> list[int]:
        if isinstance(prompt, str):
            return self.tokenizer.encode(prompt).ids
        assert not isinstance(prompt, int)
        for token in prompt:
            if token >= self._vocabulary:
                raise ApiError(f"Token id {token} is out of vocabulary", param="prompt")
        return list(prompt)

    def _checked(self, tokens: list[int]) -> list[int]:
        if not tokens:
            raise ApiError("The decoder prompt cannot be empty", param="prompt")
        if len(tokens) > self.max_length:
            raise ApiError(
                f"This model's maximum context length is {self.max_length} tokens. However, your"
                f" prompt contains {len(tokens)} input tokens, which exceeds this limit even"
                " without any output tokens. Please reduce the length of the input prompt.",
                param="input_tokens",
            )
        return tokens


def _in_range(request: GenerationRequest, logprobs: int | None) -> None:
    temperature, top_p = request.temperature, request.top_p
    if temperature is not None and not (math.isfinite(temperature) and 0 <= temperature <= 2):
        raise ApiError(f"temperature must be in [0, 2], got {temperature}.", param="temperature")
    if top_p is not None and not 0 < top_p <= 1:
        raise ApiError(f"top_p must be in (0, 1], got {top_p}.", param="top_p")
    if "" in request.stops:
        raise ApiError("stop cannot contain an empty string.", param="stop")
    if logprobs is not None and logprobs > _MAX_LOGPROBS:
        raise ApiError(
            f"Requested sample logprobs of {logprobs}, which is greater than max allowed:"
            f" {_MAX_LOGPROBS}",
            param="logprobs",
        )
