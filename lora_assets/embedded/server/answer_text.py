"""Tokens into text, piece by piece, up to a stop string."""

from collections.abc import Sequence

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream


class AnswerText:
    """The text of one growing answer.

    Text that could still turn out to begin a stop string is held back, so that what `take`
    returned always stays true. `stopped_by` is the stop string that ended the answer.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._stop = stop
        self._held = max((len(text) for text in stop), default=1) - 1
        self._text = ""
        self._taken = 0
        self.stopped_by: str | None = None

    def add(self, token: int) -> None:
        """Take up the next token."""
        piece = self._stream.step(self._tokenizer, token)
        if piece is None:
            return
        searched = max(0, len(self._text) - self._held)
        self._text += piece
        self._cut(searched)

    def finish(self, tokens: Sequence[int]) -> None:
        """No token follows: `tokens` are all there were, half a character at the end included."""
        if self.stopped_by is None:
            searched = max(0, len(self._text) - self._held)
            self._text = self._tokenizer.decode(tokens, skip_special_tokens=True)
            self._cut(searched)
        self._held = 0

    def take(self) -> str:
        """The text that is new since the last call."""
        end = len(self._text) if self.stopped_by is not None else len(self._text) - self._held
        if end <= self._taken:
            return ""
        piece = self._text[self._taken : end]
        self._taken = end
        return piece

    def _cut(self, searched: int) -> None:
        found = [(at, text) for text in self._stop if (at := self._text.find(text, searched)) >= 0]
        if found:
            at, self.stopped_by = min(found)
            self._text = self._text[:at]
