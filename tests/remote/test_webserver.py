import socket
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from lora_assets.errors import ConnectionLost, LoraAssetsError
from lora_assets.remote import webserver
from lora_assets.remote.webserver import DagsterWebserver
from tests.support.doubles.trickling import trickling

EMPTY = {"data": {"runsOrError": {"__typename": "Runs", "results": []}}}


class Resolver:
    """Answer as Dagster while `fails_with` is None; else raise that resolver's error, as httpx."""

    def __init__(self, fails_with: int | None) -> None:
        self.fails_with = fails_with
        self.requests = 0

    def request(self, method: str, url: str, deadline: float, **options: Any) -> httpx.Response:
        self.requests += 1
        if self.fails_with is None:
            return httpx.Response(200, json=EMPTY)
        failed = socket.gaierror(self.fails_with, "it can't be resolved")
        raise httpx.ConnectError(str(failed)) from failed


Reach = Callable[[Resolver], DagsterWebserver]


@pytest.fixture
def reached_by(monkeypatch: pytest.MonkeyPatch) -> Reach:
    def reach(resolver: Resolver) -> DagsterWebserver:
        monkeypatch.setattr(webserver, "request", resolver.request)
        return DagsterWebserver("http://dagster.test", "")

    return reach


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_assets.remote.webserver.time.sleep", lambda _: None)


@pytest.mark.parametrize("code", [socket.EAI_NONAME, socket.EAI_NODATA])
def test_a_host_that_does_not_exist_is_refused_at_once(reached_by: Reach, code: int) -> None:
    resolver = Resolver(code)
    with pytest.raises(LoraAssetsError, match=r"does not exist.*Set DAGSTER_URL") as refused:
        reached_by(resolver).runs({})
    assert not isinstance(refused.value, ConnectionLost)
    assert resolver.requests == 1


def test_a_resolver_that_fails_for_a_while_is_a_lost_connection(reached_by: Reach) -> None:
    resolver = Resolver(socket.EAI_AGAIN)
    with pytest.raises(ConnectionLost, match="is lost"):
        reached_by(resolver).runs({})
    assert resolver.requests == 1 + len(webserver.PAUSES)


def test_a_host_that_has_answered_before_is_a_lost_connection(reached_by: Reach) -> None:
    resolver = Resolver(None)
    dagster = reached_by(resolver)
    assert dagster.runs({}) == []
    resolver.fails_with = socket.EAI_NONAME
    with pytest.raises(ConnectionLost, match="is lost"):
        dagster.runs({})


def test_a_reply_that_comes_byte_by_byte_is_a_lost_connection_at_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webserver, "DEADLINE_S", 0.3)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    with (
        trickling(head) as url,
        pytest.raises(ConnectionLost, match=r"is lost \(no whole reply within 0.3 s"),
    ):
        DagsterWebserver(url, "").runs({})
