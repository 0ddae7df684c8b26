"""The server as a process of its own."""

import json
import re
import signal
import socket
from pathlib import Path

import httpx
import pytest

from lora_assets.embedded.server.options import ServerOptions
from lora_assets.embedded.server.process import serve
from lora_assets.errors import LoraAssetsError
from tests.support.replicas import running


def test_it_frees_the_row_of_a_client_that_leaves_and_stops_on_a_signal(adapters_dir: Path) -> None:
    short = {"model": "one", "prompt": "ListTables", "max_tokens": 2, "temperature": 0}
    endless = {**short, "max_tokens": 1000, "ignore_eos": True}
    modules = {"one": adapters_dir / "one"}
    with (
        running(adapters_dir, lora_modules=modules, max_num_seqs=1) as server,
        httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client,
    ):
        server.await_ready()
        cards = client.get("/v1/models").json()["data"]
        assert [card["id"] for card in cards] == ["embedded-base", "one"]
        with client.stream("POST", "/v1/completions", json={**endless, "stream": True}) as reply:
            line = next(reply.iter_lines())
            assert json.loads(line.removeprefix("data: "))["choices"][0]["finish_reason"] is None
            assert client.get("/health").status_code == 200
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/completions", json=endless, timeout=0.05)
        # There is one row: an answer means that the two before have left it.
        assert client.post("/v1/completions", json=short).status_code == 200
        aborted = re.search(r'finished_reason="abort".*} (\S+)', client.get("/metrics").text)
        assert aborted
        assert float(aborted[1]) == 2
        assert server.process is not None
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=30) == 0


def test_a_port_in_use_is_one_line_with_the_remedy(adapters_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = ServerOptions(port=taken.getsockname()[1], adapters_dir=adapters_dir)
        with pytest.raises(LoraAssetsError, match=r"can't listen on .* Stop what listens there"):
            serve(options)
