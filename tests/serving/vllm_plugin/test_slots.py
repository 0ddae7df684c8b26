"""The slot middleware around a small server: what the server gets, what its clients get."""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from lora_assets.serving.vllm_plugin import adapters_folder
from lora_assets.serving.vllm_plugin.base_files import ServedBase, cached_commit, digest_base
from lora_assets.serving.vllm_plugin.guard import LOADS
from lora_assets.serving.vllm_plugin.slots import (
    BASE_HEADER,
    FOLDER_HEADER,
    SlotMiddleware,
    named_folder,
)

ONE, TWO = "1" * 64, "2" * 64
LOADED = ("base", "m-v1")
"""What the small server lists; m-v2 has a name, and nobody has asked for it yet."""


@dataclass(frozen=True)
class Reply:
    """A server's answer as the ASGI messages that it was sent in."""

    status: int
    headers: Mapping[str, str]
    parts: Sequence[bytes]

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Adapters m-v1 and m-v2; the slot `live` stands for m-v1, `candidate` for m-v2."""
    for slot, name, digest in (("live", "m-v1", ONE), ("candidate", "m-v2", TWO)):
        (tmp_path / digest).mkdir()
        adapters_folder.set_name(tmp_path, name, digest)
        adapters_folder.set_slot(tmp_path, slot, name)
    return tmp_path


async def echo(request: Request) -> Response:
    length = request.headers.get("content-length", "none")
    return Response(await request.body(), headers={"x-length": length})


async def stream(request: Request) -> Response:
    await request.body()
    return StreamingResponse(iter([b"data: 1\n\n", b"data: 2\n\n", b"data: [DONE]\n\n"]))


async def models(request: Request) -> Response:
    if "authorization" not in request.headers:
        return JSONResponse({"error": "Unauthorized"}, 401)
    cards = [{"id": name, "root": f"/of/{name}", "parent": None} for name in LOADED]
    return JSONResponse({"object": "list", "data": cards})


def small_server() -> Starlette:
    paths = ("/v1/completions", "/v1/chat/completions", LOADS, "/other")
    return Starlette(
        routes=[
            *(Route(path, echo, methods=["POST"]) for path in paths),
            Route("/v1/responses", stream, methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1/version", lambda _: PlainTextResponse("0.32.0")),
        ]
    )


@dataclass(frozen=True)
class Client:
    """A client of an app behind the middleware; one that `leaves` does so after its request."""

    app: Any
    leaves: bool = False

    def __call__(self, method: str, path: str, *parts: bytes, **headers: str) -> Reply:
        """Send one request with its body in `parts`."""
        scope = {"type": "http", "method": method, "path": path, "query_string": b""}
        named = [(name.replace("_", "-").encode(), v.encode()) for name, v in headers.items()]
        bodies = list(enumerate(parts or (b"",), 1))
        asked = iter(
            [{"type": "http.request", "body": p, "more_body": n < len(parts)} for n, p in bodies]
        )
        sent: list[Any] = []

        async def receive() -> Any:
            if (part := next(asked, None)) is not None:
                return part
            return {"type": "http.disconnect"} if self.leaves else await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self.app({**scope, "headers": named}, receive, send))
        start, *rest = sent
        got = {name.decode(): value.decode() for name, value in start["headers"]}
        return Reply(start["status"], got, [m["body"] for m in rest if m["body"]])


@pytest.fixture
def ask(folder: Path) -> Client:
    return Client(SlotMiddleware(small_server(), folder))


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_a_slot_reaches_the_server_as_the_adapter_that_it_stands_for(
    ask: Client, path: str
) -> None:
    asked = {"model": "live", "prompt": "Grüße 😀", "stop": [None, 1.5]}
    body = json.dumps(asked).encode()
    reply = ask("POST", path, body, content_length=str(len(body)))
    assert json.loads(reply.body) == {**asked, "model": "m-v1"}
    assert reply.headers["x-length"] == str(len(reply.body))


def test_a_body_that_arrives_in_parts_is_renamed_whole(ask: Client) -> None:
    body = json.dumps({"model": "candidate", "prompt": "x" * 50}).encode()
    parts = [body[at : at + 7] for at in range(0, len(body), 7)]
    assert json.loads(ask("POST", "/v1/completions", *parts).body)["model"] == "m-v2"


NO_SLOTS = [
    *(b'{"model": "m-v1",  "prompt": "a"}', b'{"model": "base"}', b'{"model": "../slots/live"}'),
    *(b'{"model": ["live"]}', b'{"prompt":  "live"}', b'["live"]', b'{"model": "live"'),
    *(b"\xff\xfe not JSON", b"", b'{"model":' + b"[" * 100_000),
]


@pytest.mark.parametrize("body", NO_SLOTS, ids=range(len(NO_SLOTS)))
def test_a_body_that_asks_for_no_slot_arrives_byte_for_byte(ask: Client, body: bytes) -> None:
    length = str(len(body))
    whole = ask("POST", "/v1/completions", body, content_length=length)
    parted = ask("POST", "/v1/completions", body[:5], body[5:], content_length=length)
    assert whole.body == parted.body == body
    assert whole.headers["x-length"] == parted.headers["x-length"] == length


@pytest.mark.parametrize(
    ("name", "path", "status"),
    [
        (f"m-v1-{'a' * 12}", f"{{}}/{'a' * 64}", 200),
        ("live", f"{{}}/{'a' * 64}", 403),
        (f"m-v1-{'a' * 12}", f"{{}}/{'a' * 64}/../x", 403),
        (f"m-v1-{'a' * 12}", f"attacker/{'a' * 64}", 403),
        ("live", "attacker/hf-repo", 403),
    ],
)
def test_where_loads_have_a_key_an_adapter_is_loaded_from_its_own_folder_alone(
    folder: Path, name: str, path: str, status: int
) -> None:
    load = json.dumps({"lora_name": name, "lora_path": path.format(folder)}).encode()
    without = Client(SlotMiddleware(small_server(), folder))
    guarded = Client(SlotMiddleware(small_server(), folder, loads_own_alone=True))
    assert without("POST", LOADS, load).status == 200
    assert guarded("POST", LOADS, load).status == status
    assert guarded("POST", LOADS, b"[]").status == 200


def test_what_lies_outside_the_model_api_is_left_alone(ask: Client) -> None:
    body = b'{"model": "live"}'
    assert ask("POST", "/other", body).body == body
    assert ask("GET", "/v1/version").body == b"0.32.0"


def test_a_streamed_answer_passes_part_by_part(ask: Client) -> None:
    reply = ask("POST", "/v1/responses", b'{"model": "live"}')
    assert reply.parts == [b"data: 1\n\n", b"data: 2\n\n", b"data: [DONE]\n\n"]


def test_the_server_still_learns_that_its_client_left(folder: Path) -> None:
    async def patient(scope: Any, receive: Any, send: Any) -> None:
        kinds = [(await receive())["type"] for _ in range(2)]
        await PlainTextResponse(" ".join(kinds))(scope, receive, send)

    app = SlotMiddleware(patient, folder)
    for body in (b'{"model": "live"}', b'{"model": "m-v1"}'):
        reply = Client(app, leaves=True)("POST", "/v1/completions", body)
        assert reply.body == b"http.request http.disconnect"


def test_a_link_replaced_between_two_requests_takes_effect(ask: Client, folder: Path) -> None:
    body = b'{"model": "live"}'
    names = []
    for name in ("m-v1", "m-v2", "m-v1"):
        adapters_folder.set_slot(folder, "live", name)
        names.append(json.loads(ask("POST", "/v1/completions", body).body)["model"])
    assert names == ["m-v1", "m-v2", "m-v1"]
    adapters_folder.clear_slot(folder, "live")
    assert ask("POST", "/v1/completions", body).body == body


def test_slots_are_listed_as_the_loaded_adapter_that_they_stand_for(
    ask: Client, folder: Path
) -> None:
    reply = ask("GET", "/v1/models", authorization="Bearer key")
    cards = {card["id"]: card for card in json.loads(reply.body)["data"]}
    assert set(cards) == {"base", "m-v1", "live"}
    assert cards["live"] == {**cards["m-v1"], "id": "live"}
    assert reply.headers["content-length"] == str(len(reply.body))
    assert reply.headers[FOLDER_HEADER] == str(folder)


def test_the_base_models_digest_is_told_once_it_is_known(folder: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "config.json"):
        (tmp_path / name).write_text(name)
    reader = ServedBase()
    assert reader.identity(str(tmp_path)) in (None, digest_base(tmp_path))
    while (told := reader.identity(str(tmp_path))) is None:
        pass
    ask = Client(SlotMiddleware(small_server(), folder, told))
    headers = ask("GET", "/v1/models", authorization="Bearer key").headers
    assert headers[BASE_HEADER] == digest_base(tmp_path)


def test_a_base_model_from_the_hub_is_the_only_commit_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    found = [cached_commit("org/model")]
    for commit in ("0f1e", "2d3c"):
        (tmp_path / "models--org--model" / "snapshots" / commit).mkdir(parents=True)
        found.append(cached_commit("org/model"))
    assert found == [None, "0f1e", None]


def test_a_refused_listing_passes_as_it_is(ask: Client) -> None:
    reply = ask("GET", "/v1/models")
    assert (reply.status, json.loads(reply.body)) == (401, {"error": "Unauthorized"})
    assert reply.headers["content-length"] == str(len(reply.body))


def test_a_browsers_preflight_of_the_listing_is_answered(folder: Path) -> None:
    app = SlotMiddleware(CORSMiddleware(small_server(), allow_origins=["*"]), folder)
    asked = {"origin": "http://ui", "access_control_request_method": "GET"}
    assert Client(app)("OPTIONS", "/v1/models", **asked).status == 200


def test_a_folder_without_slots_changes_nothing(tmp_path: Path) -> None:
    ask = Client(SlotMiddleware(small_server(), tmp_path / "absent"))
    body = b'{"model": "live"}'
    assert ask("POST", "/v1/completions", body).body == body
    listed = ask("GET", "/v1/models", authorization="Bearer key")
    assert [card["id"] for card in json.loads(listed.body)["data"]] == ["base", "m-v1"]


def test_something_else_among_the_slots_does_not_stop_them(folder: Path) -> None:
    (folder / "slots" / ".nfs0001").write_text("left by a file system")
    assert adapters_folder.slots(folder) == {"live": "m-v1", "candidate": "m-v2"}


def test_a_name_leads_to_its_digest_folder_and_an_unknown_one_nowhere(folder: Path) -> None:
    assert named_folder(folder, "m-v1") == folder / ONE
    assert named_folder(folder, "live") is None
    assert named_folder(folder, "m-v3") is None


def test_a_name_leads_to_the_path_that_the_adapter_is_loaded_from(tmp_path: Path) -> None:
    (tmp_path / "disk" / ONE).mkdir(parents=True)
    mounted = tmp_path / "mnt"
    mounted.symlink_to(tmp_path / "disk")
    adapters_folder.set_name(mounted, "m-v1", ONE)
    assert named_folder(mounted, "m-v1") == mounted / ONE


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../names/m-v1", "./m-v1", "m-v1/", "m-v1\0", "/names/m-v1", "\ud800",
             "x" * 300]
)  # fmt: skip
def test_what_is_no_plain_name_leads_nowhere(folder: Path, name: str) -> None:
    assert named_folder(folder, name) is None


def test_a_link_that_leaves_the_folder_leads_nowhere(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path.parent / re.sub(r"\W", "", tmp_path.name + "outside") / ONE
    outside.mkdir(parents=True)
    links = {
        "out": outside,
        "broken": "../nothing",
        "above": "../..",
        "deep": "../1/2",
        "self": "self",
    }
    for name, target in links.items():
        (folder / "names" / name).symlink_to(target)
    (folder / "names" / "file").write_text("no link")
    absolute = str(folder / "names" / "m-v1")
    assert [named_folder(folder, name) for name in (*links, "file", absolute)] == [None] * 7
