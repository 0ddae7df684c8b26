"""The engine: continuous batching, one decoding step for all running rows at a time.

A thread of its own holds the rows. It takes up waiting rows between two steps, drops
finished and abandoned ones, and tells the event loop once per step what is new.
"""

import threading
import time
from collections import deque
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer

from lora_assets.engines.server.answer_text import AnswerText
from lora_assets.engines.server.calls import Adapter, Call, Delta, EngineStopped, Row, deliver
from lora_assets.engines.server.decoder import Decoder
from lora_assets.engines.server.lora import LoraBatch, LoraRows
from lora_assets.engines.server.metrics import FinishReason, ServerMetrics
from lora_assets.engines.server.sampling import Sampling, choose, logprobs_of, new_generator

# Prompts of one prefill: enough tokens to fill the products, few enough to keep others waiting
# no longer than some steps.
_PREFILL_TOKENS = 512


class Engine:
    """Answers prompts with a base model and any adapters, many at a time."""

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        metrics: ServerMetrics,
        max_rows: int,
        max_loras: int,
    ) -> None:
        self.decoder = decoder
        self.tokenizer = tokenizer
        self.metrics = metrics
        self._max_rows = max_rows
        self._max_loras = max_loras
        self._cache = decoder.new_cache(max_rows)
        self._waiting: deque[Row] = deque()
        self._rows: list[Row] = []
        self._lora: LoraRows | None = None
        self._batch = LoraBatch(())
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="decoding", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """False once the engine was closed or an error ended it."""
        return self._thread.is_alive()

    def submit(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        adapter: Adapter | None,
        stream: bool,
        arrived: float,
    ) -> Call:
        """Queue one row per prompt (token ids). Call it on the event loop that will listen.

        `arrived` is time.perf_counter() when the request came in. Raises EngineStopped.
        """
        call = Call(stream, arrived)
        rows = []
        for index, prompt in enumerate(prompts):
            text = AnswerText(self.tokenizer, sampling.stop)
            chance = new_generator(sampling)
            rows.append(Row(call, index, prompt, sampling, adapter, text, chance))
        call.unfinished = len(rows)
        with self._changed:
            if self._closed:
                raise EngineStopped
            self._waiting.extend(rows)
            self._changed.notify()
        return call

    def metrics_text(self) -> bytes:
        """What `/metrics` answers."""
        with self._changed:
            running = [row.adapter.name if row.adapter else None for row in self._rows]
            waiting = [row.adapter.name if row.adapter else None for row in self._waiting]
        return self.metrics.render(running, waiting)

    def close(self) -> None:
        """Stop after the current step; calls that are not finished raise EngineStopped."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                while self._wait_for_work():
                    self._step()
        finally:
            with self._changed:
                self._closed = True
                left = {row.call for row in (*self._rows, *self._waiting)}
                self._rows, self._waiting = [], deque()
            for call in left:
                if not call.loop.is_closed():
                    call.loop.call_soon_threadsafe(call.deltas.put_nowait, EngineStopped())

    def _wait_for_work(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._rows or self._waiting)
            return not self._closed

    def _step(self) -> None:
        new, gone = self._admit()
        self.metrics.finished["abort"].inc(len(gone))
        deltas: list[tuple[Call, Delta]] = []
        self._drop([row for row in self._rows if row.call.abandoned], "abort")
        if new:
            self._prefill(new, deltas)
        if self._rows:
            if self._lora is None:
                self._lora = self._lora_rows(self._rows, [1] * len(self._rows))
            newest = [row.tokens[-1] for row in self._rows]
            logits = self.decoder.decode(newest, self._cache, self._lora)
            self._take_up(self._rows, logits, deltas)
        deliver(deltas)

    def _admit(self) -> tuple[list[Row], list[Row]]:
        """Waiting rows that fit in now, first come first served; and those given up meanwhile."""
        new: list[Row] = []
        gone: list[Row] = []
        users = {row.weights for row in self._rows if row.weights is not None}
        tokens = 0
        with self._changed:
            while self._waiting and len(self._rows) + len(new) < self._max_rows:
                row = self._waiting[0]
                if not row.call.abandoned:
                    wanted = users if row.weights is None else users | {row.weights}
                    if len(wanted) > self._max_loras:
                        break
                    if new and tokens + len(row.prompt) > _PREFILL_TOKENS:
                        break
                    users = wanted
                    tokens += len(row.prompt)
                (gone if row.call.abandoned else new).append(self._waiting.popleft())
        return new, gone

    def _prefill(self, new: list[Row], deltas: list[tuple[Call, Delta]]) -> None:
        every = any(row.sampling.prompt_logprobs for row in new)
        lengths = [len(row.prompt) for row in new]
        logits = self.decoder.prefill(
            [row.prompt for row in new], self._cache, self._lora_rows(new, lengths), every
        )
        with self._changed:
            self._rows = [*self._rows, *new]
        self._lora = None
        self.metrics.prompt_tokens.inc(sum(lengths))
        if every:
            for row, own in zip(new, torch.split(logits, lengths), strict=True):
                if row.sampling.prompt_logprobs and len(row.prompt) > 1:
                    count = row.sampling.logprobs or 0
                    row.prompt_logprobs = tuple(logprobs_of(own[:-1], row.prompt[1:], count))
            logits = logits[torch.tensor(lengths).cumsum(0) - 1]
        self._take_up(new, logits, deltas)

    def _lora_rows(self, rows: Sequence[Row], counts: Sequence[int]) -> LoraRows:
        users = [row.weights for row in rows]
        distinct = tuple(dict.fromkeys(user for user in users if user is not None))
        if distinct != self._batch.adapters:
            self._batch = LoraBatch(distinct)
        return self._batch.rows(users, counts)

    def _take_up(
        self, rows: Sequence[Row], logits: torch.Tensor, deltas: list[tuple[Call, Delta]]
    ) -> None:
        """Add the next token to each of the rows that `logits` (rows, vocabulary) belong to."""
        chosen = choose(logits, [r.sampling for r in rows], [r.generator for r in rows])
        now = time.perf_counter()
        ended: dict[Row, FinishReason] = {}
        for number, (row, token) in enumerate(zip(rows, chosen, strict=True)):
            reason: FinishReason | None = "error"
            if token is not None:
                if row.sampling.logprobs is not None:
                    own = logits[number : number + 1]
                    row.logprobs += logprobs_of(own, [token], row.sampling.logprobs)
                reason = self._append(row, token, now)
            if reason is not None:
                ended[row] = reason
            if reason is not None or row.call.stream:
                deltas.append((row.call, row.news(reason)))
        for reason in set(ended.values()):
            self._drop([row for row, why in ended.items() if why == reason], reason)

    def _append(self, row: Row, token: int, now: float) -> FinishReason | None:
        if row.tokens:
            self.metrics.inter_token_latency.observe(now - row.last_token_at)
        else:
            self.metrics.time_to_first_token.observe(now - row.call.arrived)
        row.last_token_at = now
        row.tokens.append(token)
        self.metrics.generation_tokens.inc()
        end = token == self.decoder.end_token and not row.sampling.ignore_eos
        if not end and (row.call.stream or row.sampling.stop):
            row.text.add(token)
        full = len(row.prompt) + len(row.tokens) >= self.decoder.max_length
        if end or row.text.stopped_by is not None:
            row.text.finish(row.tokens[:-1] if end else row.tokens)
            return "stop"
        if full or len(row.tokens) >= row.sampling.max_tokens:
            row.text.finish(row.tokens)
            return "stop" if row.text.stopped_by is not None else "length"
        return None

    def _drop(self, rows: Sequence[Row], reason: FinishReason) -> None:
        if not rows:
            return
        left = list(self._rows)
        now = time.perf_counter()
        for row in rows:
            place = left.index(row)
            self._cache.drop(place)
            left[place] = left[-1]
            left.pop()
            self.metrics.finished[reason].inc()
            if reason != "abort":
                self.metrics.e2e_latency.observe(now - row.call.arrived)
        with self._changed:
            self._rows = left
        self._lora = None
