"""The engine: continuous batching on two threads, one reading prompts, one writing answers.

The writing thread decodes one token for all running calls at a time and drops finished and
abandoned ones between two steps; prompts that were read meanwhile join there. Each thread
computes on one core, so neither waits for the other, and nobody's answer stalls while a long
prompt is read.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import torch
from tokenizers import Tokenizer

from lora_assets.embedded.server.calls import Asked, Call, EngineStopped, News, deliver
from lora_assets.embedded.server.decoder import Decoder
from lora_assets.embedded.server.kv_cache import PromptKV
from lora_assets.embedded.server.lora import LoraBatch, LoraRows
from lora_assets.embedded.server.metrics import FinishReason, ServerMetrics
from lora_assets.embedded.server.options import ServerOptions

# Prompts that are read together: enough tokens to fill the products of a core.
_PREFILL_TOKENS = 512


class Engine:
    """Answers prompts with a base model and any adapters, many at a time."""

    def __init__(
        self, decoder: Decoder, tokenizer: Tokenizer, metrics: ServerMetrics, options: ServerOptions
    ) -> None:
        self.decoder = decoder
        self.metrics = metrics
        self._tokenizer = tokenizer
        self._options = options
        self._cache = decoder.new_cache(options.max_num_seqs)
        # Shared by the threads, and changed only while holding `_changed`.
        self._changed = threading.Condition()
        self._waiting: deque[Call] = deque()
        self._reading: list[Call] = []
        self._read: list[tuple[Call, PromptKV]] = []
        self._writing: list[Call] = []
        self._closed = False
        self._threads = [
            threading.Thread(target=self._work, args=(work,), name=name, daemon=True)
            for name, work in (("reading", self._read_prompts), ("writing", self._write_answers))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def alive(self) -> bool:
        """Return whether the engine works: it was not closed, and no error ended it."""
        return not self._closed

    def submit(self, asked: Asked, arrived: float) -> Call:
        """Queue a call. Use it on the event loop that will listen.

        `arrived` is time.perf_counter() when the request came in. Raise EngineStopped.
        """
        call = Call(asked, self._tokenizer, arrived)
        with self._changed:
            if self._closed:
                raise EngineStopped
            self._waiting.append(call)
            self._changed.notify_all()
        return call

    def metrics_text(self) -> bytes:
        """Return the text that `/metrics` answers."""
        with self._changed:
            running = [call.adapter_name for call in self._running()]
            waiting = [call.adapter_name for call in self._waiting]
        return self.metrics.render(running, waiting)

    def close(self) -> None:
        """Stop after the current step; calls that are not finished raise EngineStopped."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _running(self) -> list[Call]:
        return [*self._reading, *(call for call, _ in self._read), *self._writing]

    def _work(self, work: Callable[[], None]) -> None:
        try:
            with torch.inference_mode():
                work()
        finally:
            with self._changed:
                self._closed = True
                left = [*self._running(), *self._waiting]
                self._waiting.clear()
                self._reading, self._read, self._writing = [], [], []
                self._changed.notify_all()
            deliver([(call, EngineStopped()) for call in left])

    def _read_prompts(self) -> None:
        mixer = _Mixer()
        while calls := self._admitted():
            prompts = [call.asked.prompt for call in calls]
            lora = mixer.rows(calls, [len(prompt) for prompt in prompts])
            logits, cached = self.decoder.prefill(prompts, lora)
            self.metrics.prompt_tokens.inc(sum(map(len, prompts)))
            news: list[News] = []
            ended = self._take_up(calls, logits, news)
            # Before they join, else the writing thread may deliver the second token first.
            deliver(news)
            with self._changed:
                self._reading = []
                self._read += [it for it in zip(calls, cached, strict=True) if it[0] not in ended]
                self._changed.notify_all()

    def _admitted(self) -> list[Call]:
        """Wait for calls that fit in, first come first served; return none at the end."""
        with self._changed:
            while not self._closed:
                for call in [call for call in self._waiting if call.abandoned]:
                    self._waiting.remove(call)
                    self.metrics.finished["abort"].inc()
                self._reading = self._fitting()
                for _ in self._reading:
                    self._waiting.popleft()
                if self._reading:
                    break
                self._changed.wait()
            return self._reading

    def _fitting(self) -> list[Call]:
        running = self._running()
        adapters = {call.weights for call in running if call.weights is not None}
        fitting: list[Call] = []
        tokens = 0
        for call in self._waiting:
            tokens += len(call.asked.prompt)
            if call.weights is not None:
                adapters.add(call.weights)
            if len(running) + len(fitting) == self._options.max_num_seqs:
                break
            if len(adapters) > self._options.max_loras:
                break
            if fitting and tokens > _PREFILL_TOKENS:
                break
            fitting.append(call)
        return fitting

    def _write_answers(self) -> None:
        mixer = _Mixer()
        while self._joined():
            news: list[News] = []
            self._drop({call: "abort" for call in self._writing if call.abandoned})
            calls = self._writing
            if calls:
                lora = mixer.rows(calls, [1] * len(calls))
                logits = self.decoder.decode([call.tokens[-1] for call in calls], self._cache, lora)
                self._drop(self._take_up(calls, logits, news))
            deliver(news)

    def _joined(self) -> bool:
        """Let calls whose prompt was read join, once there is work; return False at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._read or self._writing)
            if self._read:
                for _, cached in self._read:
                    self._cache.admit(cached)
                self._writing = [*self._writing, *(call for call, _ in self._read)]
                self._read = []
            return not self._closed

    def _drop(self, ended: dict[Call, FinishReason]) -> None:
        if not ended:
            return
        calls = list(self._writing)
        for call, reason in ended.items():
            place = calls.index(call)
            self._cache.drop(place)
            calls[place] = calls[-1]
            calls.pop()
            if reason == "abort":
                self.metrics.finished[reason].inc()
        with self._changed:
            self._writing = calls
            self._changed.notify_all()

    def _take_up(
        self, calls: Sequence[Call], logits: torch.Tensor, news: list[News]
    ) -> dict[Call, FinishReason]:
        """Give each call its likeliest token by logits of (calls, vocabulary); return who ended."""
        values, tokens = (each.tolist() for each in logits.max(dim=-1))
        now = time.perf_counter()
        ended: dict[Call, FinishReason] = {}
        for call, value, token, own in zip(calls, values, tokens, logits, strict=True):
            reason: FinishReason | None = "error"
            if not math.isnan(value):
                self._time(call, now)
                reason = call.append(token, own, self.decoder.end_tokens, self.decoder.max_length)
            if reason is not None:
                ended[call] = reason
                self.metrics.finished[reason].inc()
                self.metrics.e2e_latency.observe(now - call.arrived)
            if reason is not None or call.asked.stream:
                news.append((call, call.delta(reason)))
        self.metrics.generation_tokens.inc(len(calls))
        return ended

    def _time(self, call: Call, now: float) -> None:
        metrics = self.metrics
        latency = metrics.inter_token_latency if call.tokens else metrics.time_to_first_token
        latency.observe(now - call.last_token_at)
        call.last_token_at = now


class _Mixer:
    """A thread's adapters, laid side by side anew only for another list of calls."""

    def __init__(self) -> None:
        self._batch = LoraBatch(())
        self._calls: Sequence[Call] = ()
        self._last: LoraRows | None = None

    def rows(self, calls: Sequence[Call], counts: Sequence[int]) -> LoraRows:
        if self._last is None or calls is not self._calls:
            users = [call.weights for call in calls]
            distinct = tuple(dict.fromkeys(user for user in users if user is not None))
            if distinct != self._batch.adapters:
                self._batch = LoraBatch(distinct)
            self._last = self._batch.rows(users, counts)
            self._calls = calls
        return self._last
