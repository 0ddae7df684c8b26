"""What the engine produced, as the JSON of the two APIs: whole, or in chunks."""

import time
import uuid
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

from lora_assets.embedded.server.calls import Delta, TokenLogprobs

Json = dict[str, Any]


def usage(prompt_tokens: int, completion_tokens: int) -> Json:
    """Return the token counts; the end-of-sequence token counts as generated."""
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
    }


def _ending(delta: Delta) -> Json:
    return {"finish_reason": delta.finish_reason, "stop_reason": None}


class CompletionReply:
    """The reply to one completion request."""

    opening: Sequence[Json] = ()
    """The chunks that come before the first token's."""

    def __init__(self, model: str, tokenizer: Tokenizer, alternatives: int | None) -> None:
        self._head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
        }
        self._tokenizer = tokenizer
        self._alternatives = alternatives
        self._offset = 0

    def whole(self, delta: Delta, counts: Json) -> Json:
        """Return the reply to a request that does not stream."""
        return {**self.chunk(delta), "usage": counts}

    def chunk(self, delta: Delta) -> Json:
        """Return one delta of a stream."""
        logprobs = None if self._alternatives is None else self._logprobs(delta.logprobs)
        choice = {"index": 0, "text": delta.text, "logprobs": logprobs, **_ending(delta)}
        return {**self._head, "choices": [choice]}

    def closing(self, counts: Json) -> Json:
        """Return the chunk with the token counts."""
        return {**self._head, "choices": [], "usage": counts}

    def _logprobs(self, tokens: Sequence[TokenLogprobs]) -> Json:
        names = [self._name(own.token) for own in tokens]
        offsets = []
        for name in names:
            offsets.append(self._offset)
            self._offset += len(name)
        return {
            "text_offset": offsets,
            "token_logprobs": [_finite(own.logprob) for own in tokens],
            "tokens": names,
            "top_logprobs": [self._top(own) for own in tokens],
        }

    def _top(self, own: TokenLogprobs) -> dict[str, float]:
        # As OpenAI defines it: the token itself and as many others as were asked for.
        pairs = {own.token: own.logprob, **dict(own.top)}
        kept = list(pairs.items())[: (self._alternatives or 0) + 1]
        return {self._name(token): _finite(logprob) for token, logprob in kept}

    def _name(self, token: int) -> str:
        return self._tokenizer.decode([token], skip_special_tokens=False)


class ChatReply:
    """The reply to one chat request."""

    def __init__(self, model: str) -> None:
        made = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self._head = {**made, "object": "chat.completion"}
        self._chunk_head = {**made, "object": "chat.completion.chunk"}
        self.opening = (self._chunk({"role": "assistant", "content": ""}, {"finish_reason": None}),)

    def whole(self, delta: Delta, counts: Json) -> Json:
        """Return the reply to a request that does not stream."""
        message = {"role": "assistant", "content": delta.text}
        choice = {"index": 0, "message": message, "logprobs": None, **_ending(delta)}
        return {**self._head, "choices": [choice], "usage": counts}

    def chunk(self, delta: Delta) -> Json:
        """Return one delta of a stream."""
        return self._chunk({"content": delta.text}, _ending(delta))

    def closing(self, counts: Json) -> Json:
        """Return the chunk with the token counts."""
        return {**self._chunk_head, "choices": [], "usage": counts}

    def _chunk(self, delta: Json, ending: Json) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, **ending}
        return {**self._chunk_head, "choices": [choice]}


def _finite(logprob: float) -> float:
    """Return -9999 for minus infinity, as vLLM does: JSON has no infinity."""
    return max(logprob, -9999.0)
