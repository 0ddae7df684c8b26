import asyncio
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from lora_assets.errors import LoraAssetsError
from lora_assets.resources.judge import JUDGE
from lora_assets.serving import bounded_client, http_client
from lora_assets.serving.http_client import VLLM, open_client
from tests.support.doubles.trickling import trickling

SECRET = "sk-very-secret"


def double_that_replies(response: Response) -> httpx.AsyncClient:
    """A server double that says one thing to everything."""
    app = FastAPI()

    @app.get("/judge/v1/models")
    async def models() -> Response:
        return response

    client = open_client("http://double/judge", 5, SECRET, JUDGE)
    client._transport = httpx.ASGITransport(app)
    return client


def _models(client: httpx.AsyncClient) -> Sequence[str]:
    async def ask() -> Sequence[str]:
        async with client:
            return await http_client.models(client)

    return asyncio.run(ask())


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "RETRY_PAUSES", (0.0, 0.0))


def test_a_path_in_the_base_url_is_kept() -> None:
    reply = JSONResponse({"object": "list", "data": [{"id": "m", "object": "model"}]})
    assert _models(double_that_replies(reply)) == ["m"]


@pytest.mark.parametrize(
    ("response", "cause"),
    [
        (JSONResponse({"error": {"message": "no such model."}}, 404), "with 404: no such model"),
        (JSONResponse({"object": "error", "message": "bad"}, 400), "with 400: bad"),
        (JSONResponse({"detail": "Not Found"}, 404), "with 404: Not Found"),
        (JSONResponse({"error": "plain"}, 500), "with 500: plain"),
        (PlainTextResponse("<h1>Bad\n\nGateway</h1>", 502), "with 502: <h1>Bad Gateway</h1>"),
        (PlainTextResponse("", 503), r"with 503: \(no message\)"),
        (PlainTextResponse("<html>"), "can't be read"),
        (JSONResponse({"data": [{"name": "m"}]}), "can't be read: data.0.id"),
    ],
)
def test_a_reply_that_is_no_answer_is_one_line_with_url_and_reason(
    response: Response, cause: str
) -> None:
    with pytest.raises(LoraAssetsError, match=cause) as caught:
        _models(double_that_replies(response))
    assert "The judge at http://double/judge " in caught.value.cause
    assert " /v1/models " in caught.value.cause
    assert "\n" not in str(caught.value)
    assert not caught.value.cause.endswith(".")


def test_the_api_key_is_in_no_error_and_no_repr() -> None:
    client = double_that_replies(JSONResponse({"error": {"message": f"bad key {SECRET}"}}, 401))
    assert SECRET not in f"{client!r} {client.headers!r}"
    with pytest.raises(LoraAssetsError, match=r"bad key \[API key\]") as caught:
        _models(client)
    assert SECRET not in str(caught.value)


ASKS: dict[str, Callable[[str, float], object]] = {
    "a client": lambda url, within: _models(open_client(url, 600, deadline=within)),
    "one request": lambda url, within: http_client.send(url, within, "", VLLM, "GET", "/v1/models"),
}


@pytest.mark.parametrize(
    ("errno", "cause", "asked"),
    [
        (socket.EAI_NONAME, r"there is no host nowhere\. Correct --vllm-url", 1),
        (socket.EAI_NODATA, r"there is no host nowhere\. Correct --vllm-url", 1),
        (socket.EAI_AGAIN, r"nowhere:80 is unreachable \(\[Errno -3\] resolver", 3),
    ],
)
@pytest.mark.parametrize("ask", ASKS)
def test_a_host_that_does_not_exist_names_the_setting_and_is_not_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, ask: str, errno: int, cause: str, asked: int
) -> None:
    looked_up = []

    def resolve(*_: object, **__: object) -> NoReturn:
        looked_up.append(1)
        raise socket.gaierror(errno, "resolver")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(LoraAssetsError, match=cause) as caught:
        ASKS[ask]("http://nowhere:80", 5)
    assert "\n" not in str(caught.value)
    assert len(looked_up) == (asked if ask == "a client" else 1)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8000", "ftp://host", "http://", "http://u:pass@host", "http://[::1"]
)
def test_a_url_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(LoraAssetsError, match="is not the URL of a server") as caught:
        open_client(url, 5)
    assert "pass@" not in str(caught.value)


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"]
)
@pytest.mark.parametrize("ask", ASKS)
def test_a_server_that_sends_byte_by_byte_is_given_up_at_the_deadline(
    head: bytes, ask: str
) -> None:
    with (
        trickling(head) as url,
        pytest.raises(LoraAssetsError, match=r"unreachable \(no whole reply within 0.3 s"),
    ):
        ASKS[ask](url, 0.3)


def test_a_reply_is_read_up_to_its_bound_and_never_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packed = PlainTextResponse("x", headers={"content-encoding": "gzip"})
    with pytest.raises(LoraAssetsError, match=r"the reply is compressed \(gzip\)"):
        _models(double_that_replies(packed))
    monkeypatch.setattr(bounded_client, "MOST_REPLY_BYTES", 1 << 20)
    with pytest.raises(LoraAssetsError, match="the reply has more than 1 MiB"):
        _models(double_that_replies(PlainTextResponse("x" * (1 << 20) + "y")))


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "foo:bar:baz"])
def test_a_proxy_leads_to_others_alone_and_one_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with trickling(b"HTTP/1.1 204 No Content\r\n\r\n") as url:
        assert bounded_client.request("GET", url, 5).status_code == 204
    for ask in (partial(bounded_client.request, "GET"), open_client):
        with pytest.raises(LoraAssetsError, match=r"proxy can't be used .*ALL_PROXY"):
            ask("http://h", 5)


def test_a_key_follows_no_redirect() -> None:
    with pytest.raises(LoraAssetsError, match="with 307"):
        _models(double_that_replies(RedirectResponse("http://attacker/v1/models")))


def test_what_a_terminal_would_act_upon_is_not_printed() -> None:
    evil = JSONResponse({"error": "\x1b[2J\x1b]0;title\x07 [red]IPv6 [::1]\u202e"}, 500)
    with pytest.raises(LoraAssetsError, match=r"\?\[2J\?\]0;title\? \[red\]IPv6 \[::1\]\?"):
        _models(double_that_replies(evil))
