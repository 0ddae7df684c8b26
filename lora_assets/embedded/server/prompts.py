"""Prompts as token ids, and how long their answers may be; errors are in vLLM's words."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from lora_assets.embedded.server.api_error import ApiError
from lora_assets.embedded.server.protocol import Message


class Prompts:
    """A base model's tokenizer, chat template and length limit (in tokens)."""

    def __init__(self, folder: Path, max_length: int, vocabulary: int) -> None:
        self._chat: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.tokenizer: Tokenizer = self._chat.backend_tokenizer
        self._max_length = max_length
        self._vocabulary = vocabulary

    def of_completion(self, prompt: str | list[int]) -> list[int]:
        """Return the token ids of a completion's prompt."""
        tokens = self.tokenizer.encode(prompt).ids if isinstance(prompt, str) else prompt
        for token in tokens:
            if token >= self._vocabulary:
                raise ApiError(f"Token id {token} is out of vocabulary", param="prompt")
        return self._checked(tokens)

    def of_chat(self, conversation: Sequence[Message]) -> list[int]:
        """Return the conversation in the base model's chat template, as token ids."""
        messages = [{"role": m.role, "content": m.text} for m in conversation]
        try:
            text = self._chat.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            raise ApiError(str(error)) from None
        return self._checked(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def most_tokens(self, prompt: Sequence[int], limit: int | None) -> int:
        """Return how long an answer may be; a `limit` of None leaves it all the room there is."""
        if limit is not None and limit > self._max_length:
            raise ApiError(
                f"max_tokens={limit} cannot be greater than max_model_len={self._max_length}."
                " Please request fewer output tokens.",
                param="max_tokens",
            )
        room = self._max_length - len(prompt)
        most = room if limit is None else min(limit, room)
        if most < 1:
            raise ApiError(f"max_tokens must be at least 1, got {most}.", param="max_tokens")
        return most

    def _checked(self, tokens: list[int]) -> list[int]:
        if not tokens:
            raise ApiError("The decoder prompt cannot be empty", param="prompt")
        if len(tokens) > self._max_length:
            raise ApiError(
                f"This model's maximum context length is {self._max_length} tokens. However, your"
                f" prompt contains {len(tokens)} input tokens, which exceeds this limit even"
                " without any output tokens. Please reduce the length of the input prompt.",
                param="input_tokens",
            )
        return tokens
