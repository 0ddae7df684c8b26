"""The guard around a small server whose every route answers."""

import asyncio
import json
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse

from lora_assets.serving.vllm_plugin import guard
from lora_assets.serving.vllm_plugin.guard import ADMIN_KEY, Guard, Keys, given_keys
from lora_assets.serving.vllm_plugin.slots import SlotMiddleware

CLIENT, ADMIN = "client-key", "admin-key"
ONE, TWO = Keys([CLIENT], ""), Keys([CLIENT], ADMIN)
OF_VLLM = [
    *("POST /v1/load_lora_adapter", "POST /v1/unload_lora_adapter", "POST /adapters"),
    *("DELETE /adapters/live", "POST /invocations", "POST /sleep", "POST /reset_prefix_cache"),
    *("POST /pooling", "GET /server_info", "GET /openapi.json", "POST /v1/modelsx", "POST /health"),
    *("GET //health", "GET /health/", "GET /"),
]
"""What changes what is served, or is not known: no client's."""
OF_CLIENTS = ["GET /v1/models", "POST /v1/chat/completions", "POST /tokenize", "GET /version"]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """A server that reads the body and tells the key that it was asked with."""
    request = Request(scope, receive)
    read = len(await request.body())
    await JSONResponse([request.headers.get("authorization"), read])(scope, receive, send)


def ask(keys: Keys, asked: str, key: str = "", *parts: bytes, **more: Any) -> tuple[int, Any, int]:
    """Return the status, the reply, and how many parts of the body were read."""
    method, _, path = asked.partition(" ")
    headers = [(b"authorization", f"Bearer {key}".encode())] if key else []
    headers += [(name.encode(), value) for name, value in more.pop("headers", {}).items()]
    scope = {"type": "http", "method": method, "path": path, "headers": headers, **more}
    taken: list[bytes] = []
    sent: list[Any] = []

    async def receive() -> Any:
        taken.append(parts[len(taken)] if len(taken) < len(parts) else b"")
        return {"type": "http.request", "body": taken[-1], "more_body": len(taken) < len(parts)}

    async def send(message: Any) -> None:
        sent.append(message)

    app = SlotMiddleware(echo) if method == "POST" else echo
    asyncio.run(Guard(app, keys)(scope, receive, send))
    body = b"".join(message.get("body", b"") for message in sent)
    return sent[0]["status"], json.loads(body), len(taken)


@pytest.mark.parametrize("asked", [*OF_VLLM, *OF_CLIENTS])
@pytest.mark.parametrize("keys", [ONE, TWO], ids=["one key", "two keys"])
def test_no_route_but_probes_and_metrics_answers_without_a_key_or_reads_a_body(
    keys: Keys, asked: str
) -> None:
    for key in ("", "wrong", CLIENT[:-1]):
        assert ask(keys, asked, key, b"{}") == (401, {"error": "Unauthorized"}, 0)


@pytest.mark.parametrize("path", guard.OPEN)
def test_probes_and_metrics_answer_without_a_key(path: str) -> None:
    assert ask(TWO, f"GET {path}")[0] == 200


@pytest.mark.parametrize("asked", OF_VLLM)
def test_a_clients_key_changes_nothing_that_is_served(asked: str) -> None:
    status, reply, read = ask(TWO, asked, CLIENT, b"{}")
    assert (status, read) == (403, 0)
    assert ADMIN_KEY in reply["error"]


@pytest.mark.parametrize("asked", [*OF_VLLM, *OF_CLIENTS])
def test_the_admin_key_does_everything_and_reaches_the_server_as_the_key_that_it_knows(
    asked: str,
) -> None:
    if asked == "POST /adapters":  # It would load from any path, or from a hub.
        assert ask(TWO, asked, ADMIN)[0] == 403
    else:
        assert ask(TWO, asked, ADMIN)[:2] == (200, [f"Bearer {CLIENT}", 0])
    assert ask(ONE, asked, CLIENT)[:2] == (200, [f"Bearer {CLIENT}", 0])
    assert ask(Keys([], ""), asked)[:2] == (200, [None, 0])


def test_with_an_admin_key_alone_clients_need_none() -> None:
    keys = Keys([], ADMIN)
    assert [ask(keys, asked)[0] for asked in OF_CLIENTS] == [200] * 4
    assert ask(keys, OF_VLLM[0])[0] == 401
    assert ask(keys, OF_VLLM[0], ADMIN)[0] == 200


def test_a_root_path_is_no_way_around() -> None:
    assert ask(TWO, "POST /x/v1/completions", CLIENT, root_path="/x")[0] == 200
    assert ask(TWO, "POST /x/v1/load_lora_adapter", CLIENT, root_path="/x")[0] == 403
    assert ask(TWO, "GET /health/adapters", root_path="/health")[0] == 401


def test_a_websocket_is_closed_without_a_key() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/v1/realtime", "headers": []}
    asyncio.run(Guard(echo, ONE)(scope, asyncio.Event().wait, send))
    assert [message["type"] for message in sent] == ["websocket.close"]


@pytest.mark.parametrize("path", ["/v1/completions", "/tokenize"])
def test_a_body_is_read_up_to_its_bound_whatever_length_it_says(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "MOST_BODY_BYTES", 10)
    asked = f"POST {path}"
    assert ask(ONE, asked, CLIENT, b"12345", b"67890") == (200, [f"Bearer {CLIENT}", 10], 2)
    assert ask(ONE, asked, CLIENT, b"12345", b"678901", b"more")[::2] == (413, 2)
    said = {"content-length": b"11"}
    assert ask(ONE, asked, CLIENT, b"12345678901", headers=said)[::2] == (413, 0)


def test_the_keys_are_those_that_vllm_was_started_with() -> None:
    environ = {"VLLM_API_KEY": "a", ADMIN_KEY: "b"}
    assert given_keys(environ, ["serve"]) == Keys(["a"], "b")
    assert given_keys(environ, ["serve", "--api-key", "c", "d", "--port=1"]).api == ["c", "d"]
    assert given_keys({}, ["--api-key=e", "--enable-lora"]) == Keys(["e"], "")
    assert given_keys({}, []) == Keys([], "")
    assert "'a'" not in repr(given_keys(environ, []))
