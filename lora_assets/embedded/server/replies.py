"""What the engine produced, as the JSON of the two APIs: whole, or in chunks."""

import time
import uuid
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

from lora_assets.embedded.server.calls import Delta
from lora_assets.embedded.server.sampling import TokenLogprobs

Json = dict[str, Any]


def usage(prompt_tokens: int, completion_tokens: int) -> Json:
    """Token counts; the end-of-sequence token counts as generated."""
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens": completion_tokens,
    }


class CompletionReply:
    """The reply to one completion request.

    `echoed` holds each prompt's tokens and text where the client wants them back; with
    `echo_only` it wants nothing else.
    """

    def __init__(
        self,
        model: str,
        tokenizer: Tokenizer,
        alternatives: int | None,
        echoed: Sequence[tuple[Sequence[int], str]] = (),
        echo_only: bool = False,
    ) -> None:
        self._head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
        }
        self._tokenizer = tokenizer
        self._alternatives = alternatives
        self._echoed = dict(enumerate(echoed))
        self._echo_only = echo_only
        self._offsets: dict[int, int] = {}

    def whole(self, deltas: Sequence[Delta], counts: Json) -> Json:
        """The reply from one delta per prompt."""
        ordered = sorted(deltas, key=lambda delta: delta.index)
        return {**self._head, "choices": [self._choice(d) for d in ordered], "usage": counts}

    def opening(self) -> Sequence[Json]:
        """The chunks that come before the first token's."""
        return ()

    def chunk(self, delta: Delta) -> Json:
        """One delta of a stream."""
        return {**self._head, "choices": [self._choice(delta)]}

    def closing(self, counts: Json) -> Json:
        """The chunk with the token counts."""
        return {**self._head, "choices": [], "usage": counts}

    def _choice(self, delta: Delta) -> Json:
        tokens, text = self._echoed.pop(delta.index, ((), ""))
        produced = () if self._echo_only else delta.logprobs
        logprobs = None
        if self._alternatives is not None:
            # The first token of a prompt follows nothing, so it has no log-probability.
            first = tuple(tokens[:1])
            logprobs = self._logprobs(delta.index, first, (*delta.prompt_logprobs, *produced))
        return {
            "index": delta.index,
            "text": text if self._echo_only else text + delta.text,
            "logprobs": logprobs,
            "finish_reason": delta.finish_reason,
            "stop_reason": delta.stop_reason,
        }

    def _logprobs(self, index: int, first: Sequence[int], found: Sequence[TokenLogprobs]) -> Json:
        names = [self._name(token) for token in (*first, *(own.token for own in found))]
        offsets, offset = [], self._offsets.get(index, 0)
        for name in names:
            offsets.append(offset)
            offset += len(name)
        self._offsets[index] = offset
        missing = [None] * len(first)
        return {
            "text_offset": offsets,
            "token_logprobs": missing + [_finite(own.logprob) for own in found],
            "tokens": names,
            "top_logprobs": missing + [self._top(own) for own in found],
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

    def __init__(self, model: str, tokenizer: Tokenizer, alternatives: int | None) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._alternatives = alternatives
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())

    def whole(self, deltas: Sequence[Delta], counts: Json) -> Json:
        """The reply from its one delta."""
        message = {"role": "assistant", "content": deltas[0].text}
        choice = {"index": 0, "message": message, **self._ending(deltas[0])}
        return {**self._head("chat.completion"), "choices": [choice], "usage": counts}

    def opening(self) -> Sequence[Json]:
        """The chunk with the role, before the first token's."""
        delta = {"role": "assistant", "content": ""}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        return ({**self._head("chat.completion.chunk"), "choices": [choice]},)

    def chunk(self, delta: Delta) -> Json:
        """One delta of a stream."""
        choice = {"index": 0, "delta": {"content": delta.text}, **self._ending(delta)}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def closing(self, counts: Json) -> Json:
        """The chunk with the token counts."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": counts}

    def _head(self, kind: str) -> Json:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}

    def _ending(self, delta: Delta) -> Json:
        logprobs = None
        if self._alternatives is not None:
            logprobs = {"content": [self._content(own) for own in delta.logprobs]}
        return {
            "logprobs": logprobs,
            "finish_reason": delta.finish_reason,
            "stop_reason": delta.stop_reason,
        }

    def _content(self, own: TokenLogprobs) -> Json:
        top = own.top[: self._alternatives]
        return {
            **self._token(own.token, own.logprob),
            "top_logprobs": [self._token(token, logprob) for token, logprob in top],
        }

    def _token(self, token: int, logprob: float) -> Json:
        name = self._tokenizer.decode([token], skip_special_tokens=False)
        return {"token": name, "logprob": _finite(logprob), "bytes": list(name.encode())}


def _finite(logprob: float) -> float:
    """JSON has no infinity; vLLM writes -9999."""
    return max(logprob, -9999.0)
