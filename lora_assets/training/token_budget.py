"""How many tokens a pass takes: as many as the memory holds, by measurement."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from lora_assets.errors import LoraAssetsError
from lora_assets.training.gpu_errors import memory_ended
from lora_assets.training.rows import EncodedRow

CPU_TOKENS = 1024
"""A pass on a CPU, where more tokens are no faster. It is fixed, so that a run repeats itself."""

Result = TypeVar("Result")

MARGIN = 0.9
"""Of the free memory, what the measured cost may fill: the allocator leaves holes."""


class TokenBudget:
    """The tokens of a pass, and whether activations are computed again in the backward pass.

    `note` is told each decision in a line.
    """

    def __init__(self, model: Any, longest_row: int, note: Callable[[str], None]) -> None:
        self._model, self._longest_row, self._note = model, longest_row, note
        self.checkpointing = False
        self.tokens = CPU_TOKENS
        self.measured = model.device.type != "cuda"

    def measure(
        self, rows: Sequence[EncodedRow], cost: Callable[[Sequence[EncodedRow]], None]
    ) -> None:
        """Choose the largest budget that fits the GPU, from what passes of some of `rows` take.

        `cost` makes a forward and a backward pass over the rows it is given. Checkpointing is
        turned on only where the longest row would not fit without it.
        """
        longest_first = sorted(rows, key=lambda row: -len(row.tokens))
        one, more = longest_first[:1], longest_first[: max(2, len(rows) // 4)]
        self.measured = True
        for recomputed in (False, True):
            if recomputed:
                self._recompute()
            peaks: list[int] = []
            try:
                # The first pass leaves what stays for good, such as the workspaces of kernels.
                cost(one)
                for part in (one, more):
                    peaks.append(_peak(part, cost))
            except RuntimeError as error:
                if not memory_ended(error):
                    raise
                if not peaks:
                    continue
            finally:
                torch.cuda.empty_cache()
            first, second = peaks[0], peaks[-1]
            # Where `more` did not fit, all that a row takes counts as its tokens'.
            added = _tokens(more) - _tokens(one) if len(peaks) > 1 else 0
            per_token = (second - first) / added if added else first / _tokens(one)
            fixed = first - per_token * _tokens(one)
            fitting = int((_free() * MARGIN - fixed) / per_token)
            if fitting >= self._longest_row:
                self.tokens = fitting
                self._note(
                    f"a token takes {per_token / 2**20:.2f} MiB of {_free() / 2**30:.1f} GiB free: "
                    f"{fitting} tokens a pass{', activations recomputed' * recomputed}"
                )
                return
        self.tokens = self._longest_row

    def within(self, run: Callable[[int], Result]) -> Result:
        """Return what `run` returns for this budget, or for a smaller one where memory ends.

        Raise LoraAssetsError where not even the longest row fits.
        """
        while True:
            try:
                return run(self.tokens)
            except RuntimeError as error:
                if not memory_ended(error):
                    raise
            # Not there: the error holds the frames, and they hold the memory.
            self._model.zero_grad()
            self._shrink()

    def _shrink(self) -> None:
        if self.tokens > self._longest_row:
            self.tokens = max(self._longest_row, self.tokens // 2)
        elif not self.checkpointing:
            self._recompute()
        else:
            raise LoraAssetsError(
                f"The memory can't hold a training pass over a row of {self._longest_row} tokens",
                "Lower max-seq-length, or use a card with more memory.",
            )
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()
        recomputed = ", activations recomputed" * self.checkpointing
        self._note(f"out of memory: going on with {self.tokens} tokens a pass{recomputed}")

    def _recompute(self) -> None:
        self.checkpointing = True
        self._model.activation_checkpointing_enable({"use_reentrant": False})


def _tokens(rows: Sequence[EncodedRow]) -> int:
    return sum(len(row.tokens) for row in rows)


def _peak(rows: Sequence[EncodedRow], cost: Callable[[Sequence[EncodedRow]], None]) -> int:
    """Return the bytes that a pass over the rows takes at its peak."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    cost(rows)
    return torch.cuda.max_memory_allocated() - before


def _free() -> int:
    """Return the bytes of the GPU that this process may still take."""
    free, total = torch.cuda.mem_get_info()
    held = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    share = torch.cuda.get_per_process_memory_fraction()
    return min(free + held, int(total * share) - torch.cuda.memory_allocated())
