"""Keys and values of the running rows, aligned at their newest token."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_SLACK = 256


@dataclass(frozen=True, eq=False)
class PromptKV:
    """One prompt's keys and values: per layer (length, heads, head size) each."""

    keys: Sequence[Tensor]
    values: Sequence[Tensor]


class KVCache:
    """Rows of different lengths that all end in the same column.

    `keys` and `values` are (layers, rows, key-value heads, columns, head size). Row i's
    tokens are columns `end - lengths[i]` to `end`; everything else in its row is zero, so that
    a former row's values (a NaN times a weight of zero among them) reach no one.
    """

    def __init__(self, layers: int, rows: int, heads: int, head_size: int, max_length: int) -> None:
        self.max_length = max_length
        shape = (layers, rows, heads, max_length + _SLACK, head_size)
        self.keys = torch.zeros(shape)
        self.values = torch.zeros(shape)
        self.lengths: list[int] = []
        self.end = max_length

    @property
    def start(self) -> int:
        """Return the first column that a row uses."""
        return self.end - max(self.lengths, default=0)

    def admit(self, prompt: PromptKV) -> None:
        """Add a prompt as a new last row."""
        columns = slice(self.end - len(prompt.keys[0]), self.end)
        row = len(self.lengths)
        for layer, (keys, values) in enumerate(zip(prompt.keys, prompt.values, strict=True)):
            self.keys[layer, row, :, columns] = keys.transpose(0, 1)
            self.values[layer, row, :, columns] = values.transpose(0, 1)
        self.lengths.append(len(prompt.keys[0]))

    def advance(self) -> Tensor | None:
        """Make room for one more token in every row; return the mask that hides columns, if any.

        The mask is (rows, 1, 1, columns from `start` on): 0 where a row may look, else -inf.
        """
        if self.end == self.keys.shape[3]:
            self._slide()
        self.end += 1
        self.lengths = [length + 1 for length in self.lengths]
        longest = max(self.lengths)
        if min(self.lengths) == longest:
            return None
        first = torch.tensor([longest - length for length in self.lengths])
        hidden = torch.arange(longest) < first[:, None]
        return torch.zeros(hidden.shape).masked_fill_(hidden, -torch.inf)[:, None, None, :]

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store every row's newest (rows, heads, head size); return all that there is so far."""
        rows = len(self.lengths)
        self.keys[layer, :rows, :, self.end - 1] = keys
        self.values[layer, :rows, :, self.end - 1] = values
        window = slice(self.start, self.end)
        return self.keys[layer, :rows, :, window], self.values[layer, :rows, :, window]

    def drop(self, row: int) -> None:
        """Free a row; the last row takes its place."""
        last = len(self.lengths) - 1
        window = slice(self.start, self.end)
        for cache in (self.keys, self.values):
            if row != last:
                cache[:, row, :, window] = cache[:, last, :, window]
            cache[:, last, :, window] = 0
        self.lengths[row] = self.lengths[last]
        self.lengths.pop()

    def _slide(self) -> None:
        """Move the used columns back to where there are `_SLACK` free ones after them."""
        rows, width = len(self.lengths), self.end - self.start
        for cache in (self.keys, self.values):
            used = cache[:, :rows, :, self.start : self.end].clone()
            cache[:, :rows] = 0
            cache[:, :rows, :, self.max_length - width : self.max_length] = used
        self.end = self.max_length
