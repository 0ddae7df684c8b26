import asyncio

import psutil
import pytest

from lora_assets.errors import LoraAssetsError
from lora_assets.load_test import client_processes
from lora_assets.load_test.generator import LoadTest
from lora_assets.serving.http_client import open_client
from tests.load_test.test_generator import StreamingDouble

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def one_client_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_processes, "CLIENTS_A_PROCESS", 1)


def processes() -> list[psutil.Process]:
    """Return the clients' processes, and not the servers that other tests share."""
    name = client_processes.__name__
    return [each for each in psutil.Process().children() if name in each.cmdline()]


class KillingTheFirst(list[tuple[int, int]]):
    """Kills one of the processes when the first request has ended."""

    def append(self, progress: tuple[int, int]) -> None:
        if progress[0] == 1:
            processes()[0].kill()


def test_clients_in_three_processes_are_one_load_test() -> None:
    server = StreamingDouble(api_key="secret")
    loads = server.load([f"good/{number}" for number in range(24)], ("a", "b"), concurrency=3)
    assert server.progress[-1] == (48, 48)
    assert server.keys == {"Bearer secret"}
    assert len(set(server.clients)) == 3
    assert sorted(server.asked) == sorted(
        (model, f"good/{number}") for model in loads for number in range(24)
    )
    for load in loads.values():
        assert [len(block.samples) for block in load.blocks] == [12, 12]
        assert {sample.error for sample in load.samples} == {None}
        assert all(0 <= sample.started < 60 for sample in load.samples)
    assert processes() == []


def test_a_process_that_is_killed_ends_the_load_test_in_one_line() -> None:
    server = StreamingDouble()
    server.progress = KillingTheFirst()
    with pytest.raises(LoraAssetsError, match=r"clients ended \(exit status -9\)\. See the lines"):
        server.load([f"late text/{number}" for number in range(60)], concurrency=3)
    assert processes() == []


def test_what_a_process_refuses_is_told_before_it_ends(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.delenv("no_proxy", raising=False)

    async def measure() -> None:
        async with open_client("http://vllm:8000", 5) as client:
            await LoadTest(["m"], ["p", "p"], 2).run(client, lambda *_: None)

    with pytest.raises(LoraAssetsError, match=r"clients ended \(exit status 1\)\. See the lines"):
        asyncio.run(measure())
    assert "would measure the proxy before vllm. Add vllm to NO_PROXY." in capfd.readouterr().err
