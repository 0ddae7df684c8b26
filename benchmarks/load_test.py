"""Does the load test measure the server, or itself?

    python -m benchmarks.load_test [--json]

A server of its own process answers with known latencies: 10 tokens, 0.1 s apart, the first after
0.2 to 0.5 s. It notes when it sent what, which is held against what the clients measured. Then
20 clients ask for 16 tokens, 5 ms apart, and their CPU seconds are counted.
"""

import argparse
import asyncio
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

import httpx

from lora_assets.load_test.generator import LoadTest
from lora_assets.load_test.summary import nearest_rank, summarise
from lora_assets.serving.http_client import open_client
from tests.support.stack import free_port

CLIENTS: Mapping[int, float] = {10: 0.01, 50: 0.03, 100: 0.03, 200: 0.03}
"""Numbers of clients, with the error of TTFT's P95 that each may have (shares of 1)."""
FEWEST = 1000
"""Requests of 16 tokens per CPU second."""
EVENT = (
    b'data: {"id":"c","object":"text_completion","created":1,"model":"m","choices":[{"index":0,'
    b'"text":" word","logprobs":null,"finish_reason":%s,"stop_reason":null}],"usage":null}\n\n'
)
END = (
    b'data: {"id":"c","object":"text_completion","created":1,"model":"m","choices":[],"usage":'
    b'{"prompt_tokens":5,"total_tokens":9,"completion_tokens":%d}}\n\ndata: [DONE]\n\n'
)


async def serve(port: int, tokens: int, apart: float, first: tuple[float, float]) -> None:
    """Answer with these latencies (seconds), and what they were to GET /truth."""
    truth: list[tuple[float, float]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            began = time.perf_counter()
            if head.startswith(b"GET"):
                said = json.dumps(truth).encode()
                truth.clear()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said) + said)
                continue
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            prompt = json.loads(await reader.readexactly(length))["prompt"]
            wait = random.Random(prompt).uniform(*first)
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            ttft = 0.0
            for number in range(tokens):
                due = began + wait + number * apart
                await asyncio.sleep(max(0, due - time.perf_counter()))
                event = EVENT % (b'"stop"' if number == tokens - 1 else b"null")
                writer.write(b"%x\r\n%s\r\n" % (len(event), event))
                ttft = ttft or time.perf_counter() - began
            event = END % tokens
            writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(event), event))
            truth.append((ttft, time.perf_counter() - began))

    async def until_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async with await asyncio.start_server(until_closed, "127.0.0.1", port, backlog=1000) as server:
        print("ready", flush=True)
        await server.serve_forever()


class Server:
    """A server process with these latencies for as long as the block."""

    def __init__(self, *latencies: float) -> None:
        self._port = free_port()
        options = [str(each) for each in (self._port, *latencies)]
        command = [sys.executable, "-m", "benchmarks.load_test", "--serve", *options]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self.url = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> "Server":
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def truth(self) -> Sequence[tuple[float, float]]:
        given = httpx.get(f"{self.url}/truth", trust_env=False).json()
        return [(float(ttft), float(latency)) for ttft, latency in given]


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(server: Server, clients: int, requests: int) -> Mapping[str, float]:
    async def run() -> Mapping[str, float]:
        test = LoadTest(["m"], [f"prompt {n}" for n in range(requests)], clients)
        async with open_client(server.url, 60) as client:
            began = cpu()
            load = (await test.run(client, lambda done, total: None))["m"]
            used = cpu() - began
        metrics = summarise(load.samples, load.duration)
        assert metrics.ttft is not None
        assert metrics.latency is not None
        return {
            "ttft": metrics.ttft.p95,
            "latency": metrics.latency.p95,
            "lag": load.lag,
            "failures": metrics.failures,
            "per CPU second": requests / used,
        }

    return asyncio.run(run())


def p95(values: Sequence[float]) -> float:
    return sorted(values)[nearest_rank(len(values), 95) - 1]


def errors(server: Server, clients: int) -> Mapping[str, float]:
    """Return by which share the P95s of so many clients are too high."""
    measured = measure(server, clients, max(100, 3 * clients))
    truth = server.truth()
    return {
        "ttft": measured["ttft"] / p95([ttft for ttft, _ in truth]) - 1,
        "latency": measured["latency"] / p95([latency for _, latency in truth]) - 1,
        "lag": measured["lag"],
        "failures": measured["failures"],
        "goal": CLIENTS[clients],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", nargs=5, type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        port, tokens, apart, *first = options.serve
        asyncio.run(serve(int(port), int(tokens), apart, (first[0], first[1])))
        return
    with Server(10, 0.1, 0.2, 0.5) as server:
        found = {clients: errors(server, clients) for clients in CLIENTS}
    with Server(16, 0.005, 0.01, 0.05) as server:
        speed = measure(server, 20, 2000)["per CPU second"]
    if options.json:
        print(json.dumps({"clients": found, "requests per CPU second": speed}))
        return
    print("P95 against the server's own, by clients at a time:")
    for clients, each in found.items():
        print(
            f"{clients:5} clients   TTFT {each['ttft']:+6.1%} (at most {each['goal']:.0%})   "
            f"latency {each['latency']:+6.1%}   failures {each['failures']:.0f}   "
            f"own lag {each['lag'] * 1000:.0f} ms (P95)"
        )
    print(f"requests of 16 tokens per CPU second: {speed:,.0f} (at least {FEWEST:,})")


if __name__ == "__main__":
    main()
