"""The engine: continuous batching on two threads, one reading prompts, one writing answers.

The writing thread decodes one token for all running rows at a time and drops finished and
abandoned ones between two steps; prompts that were read meanwhile join there. Each thread
computes on one core, so neither waits for the other, and nobody's answer stalls while a long
prompt is read.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import torch
from tokenizers import Tokenizer

from lora_assets.embedded.server.answer_text import AnswerText
from lora_assets.embedded.server.calls import Adapter, Call, EngineStopped, News, Row, deliver
from lora_assets.embedded.server.decoder import Decoder
from lora_assets.embedded.server.kv_cache import PromptKV
from lora_assets.embedded.server.lora import LoraBatch, LoraRows
from lora_assets.embedded.server.metrics import FinishReason, ServerMetrics
from lora_assets.embedded.server.sampling import Sampling, choose, logprobs_of, new_generator

# Prompts that are read together: enough tokens to fill the products of a core.
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
        # Shared by the threads, and changed only while holding `_changed`.
        self._changed = threading.Condition()
        self._waiting: deque[Row] = deque()
        self._reading: list[Row] = []
        self._read: list[tuple[Row, PromptKV]] = []
        self._writing: list[Row] = []
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, args=(work,), name=name, daemon=True)
            for name, work in (("reading", self._read_prompts), ("writing", self._write_answers))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """False once the engine was closed or an error ended it."""
        return not self._closed

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
        call = Call(len(prompts), stream, arrived)
        rows = []
        for index, prompt in enumerate(prompts):
            text = AnswerText(self.tokenizer, sampling.stop)
            rows.append(Row(call, index, prompt, sampling, adapter, text, new_generator(sampling)))
        with self._changed:
            if self._closed:
                raise EngineStopped
            self._waiting.extend(rows)
            self._changed.notify_all()
        return call

    def metrics_text(self) -> bytes:
        """What `/metrics` answers."""
        with self._changed:
            running = [row.adapter_name for row in self._running()]
            waiting = [row.adapter_name for row in self._waiting]
        return self.metrics.render(running, waiting)

    def close(self) -> None:
        """Stop after the current step; calls that are not finished raise EngineStopped."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _running(self) -> list[Row]:
        return [*self._reading, *(row for row, _ in self._read), *self._writing]

    def _work(self, work: Callable[[], None]) -> None:
        try:
            with torch.inference_mode():
                work()
        finally:
            with self._changed:
                self._closed = True
                left = {row.call for row in (*self._running(), *self._waiting)}
                self._waiting.clear()
                self._reading, self._read, self._writing = [], [], []
                self._changed.notify_all()
            deliver([(call, EngineStopped()) for call in left])

    def _read_prompts(self) -> None:
        lora = _Mixer()
        while rows := self._admitted():
            lengths = [len(row.prompt) for row in rows]
            every = any(row.sampling.prompt_logprobs for row in rows)
            logits, cached = self.decoder.prefill(
                [row.prompt for row in rows], lora.rows(rows, lengths), every
            )
            self.metrics.prompt_tokens.inc(sum(lengths))
            if every:
                _note_prompt_logprobs(rows, torch.split(logits, lengths))
                logits = logits[torch.tensor(lengths).cumsum(0) - 1]
            news: list[News] = []
            ended = self._take_up(rows, logits, news)
            with self._changed:
                self._reading = []
                self._read += [it for it in zip(rows, cached, strict=True) if it[0] not in ended]
                self._changed.notify_all()
            deliver(news)

    def _admitted(self) -> list[Row]:
        """Waiting rows that fit in, first come first served; blocks till then, none at the end."""
        with self._changed:
            while not self._closed:
                self._forget([row for row in self._waiting if row.call.abandoned])
                self._reading = self._fitting()
                for _ in self._reading:
                    self._waiting.popleft()
                if self._reading:
                    break
                self._changed.wait()
            return self._reading

    def _forget(self, abandoned: Sequence[Row]) -> None:
        for row in abandoned:
            self._waiting.remove(row)
            self.metrics.finished["abort"].inc()

    def _fitting(self) -> list[Row]:
        running = self._running()
        adapters = {row.weights for row in running if row.weights is not None}
        found: list[Row] = []
        tokens = 0
        for row in self._waiting:
            tokens += len(row.prompt)
            if row.weights is not None:
                adapters.add(row.weights)
            if len(running) + len(found) == self._max_rows or len(adapters) > self._max_loras:
                break
            if found and tokens > _PREFILL_TOKENS:
                break
            found.append(row)
        return found

    def _write_answers(self) -> None:
        mixer = _Mixer()
        while self._joined():
            news: list[News] = []
            self._drop({row: "abort" for row in self._writing if row.call.abandoned})
            rows = self._writing
            if rows:
                lora = mixer.rows(rows, [1] * len(rows))
                logits = self.decoder.decode([row.tokens[-1] for row in rows], self._cache, lora)
                self._drop(self._take_up(rows, logits, news))
            deliver(news)

    def _joined(self) -> bool:
        """Let rows that were read join, once there is work; false at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._read or self._writing)
            if self._read:
                for _, cached in self._read:
                    self._cache.admit(cached)
                self._writing = [*self._writing, *(row for row, _ in self._read)]
                self._read = []
            return not self._closed

    def _drop(self, ended: dict[Row, FinishReason]) -> None:
        if not ended:
            return
        rows = list(self._writing)
        for row, reason in ended.items():
            place = rows.index(row)
            self._cache.drop(place)
            rows[place] = rows[-1]
            rows.pop()
            if reason == "abort":
                self.metrics.finished[reason].inc()
        with self._changed:
            self._writing = rows
            self._changed.notify_all()

    def _take_up(
        self, rows: Sequence[Row], logits: torch.Tensor, news: list[News]
    ) -> dict[Row, FinishReason]:
        """Give each row its next token, from logits of (rows, vocabulary); returns who ended."""
        chosen = choose(logits, [r.sampling for r in rows], [r.generator for r in rows])
        now = time.perf_counter()
        ended: dict[Row, FinishReason] = {}
        for number, (row, token) in enumerate(zip(rows, chosen, strict=True)):
            reason: FinishReason | None = "error"
            if token is not None:
                if row.sampling.logprobs is not None:
                    own = logits[number : number + 1]
                    row.logprobs += logprobs_of(own, [token], row.sampling.logprobs)
                self._time(row, now)
                reason = row.append(token, self.decoder.end_token, self.decoder.max_length)
            if reason is not None:
                ended[row] = reason
                self.metrics.finished[reason].inc()
                self.metrics.e2e_latency.observe(now - row.call.arrived)
            if reason is not None or row.call.stream:
                news.append((row.call, row.delta(reason)))
        self.metrics.generation_tokens.inc(len(rows))
        return ended

    def _time(self, row: Row, now: float) -> None:
        if row.tokens:
            self.metrics.inter_token_latency.observe(now - row.last_token_at)
        else:
            self.metrics.time_to_first_token.observe(now - row.call.arrived)
        row.last_token_at = now


class _Mixer:
    """A thread's adapters, laid side by side anew only for another list of rows."""

    def __init__(self) -> None:
        self._batch = LoraBatch(())
        self._rows: Sequence[Row] = ()
        self._last: LoraRows | None = None

    def rows(self, rows: Sequence[Row], counts: Sequence[int]) -> LoraRows:
        if self._last is None or rows is not self._rows:
            users = [row.weights for row in rows]
            distinct = tuple(dict.fromkeys(user for user in users if user is not None))
            if distinct != self._batch.adapters:
                self._batch = LoraBatch(distinct)
            self._last = self._batch.rows(users, counts)
            self._rows = rows
        return self._last


def _note_prompt_logprobs(rows: Sequence[Row], logits: Sequence[torch.Tensor]) -> None:
    for row, own in zip(rows, logits, strict=True):
        if row.sampling.prompt_logprobs and len(row.prompt) > 1:
            count = row.sampling.logprobs or 0
            row.prompt_logprobs = tuple(logprobs_of(own[:-1], row.prompt[1:], count))
