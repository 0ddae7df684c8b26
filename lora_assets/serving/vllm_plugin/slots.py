"""Slots as links: a model server's ASGI middleware that says which adapter a slot name means.

It runs inside vLLM (`--middleware lora_assets_vllm.middleware.SlotMiddleware`) and inside
the embedded server, so it needs nothing but the standard library. The server itself knows each
adapter by its own name only, so that neither its weights nor its prefix cache can mix two
adapters; a slot is renewed by replacing one link, between two requests, with no moment in which
it is missing. What a request began with answers it to its end.

The folder that it reads:

    <digest>/             an adapter's files
    names/<name>          link to ../<digest>: an adapter's own serving name
    slots/<slot>          link to ../names/<name>: what clients of the slot get
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .adapters_folder import NAMES, is_name, slots
from .base_files import ServedBase
from .guard import LOADS, App, Message, Receive, Scope, Send, refuse

FOLDER_HEADER = "x-lora-assets-adapters"
"""On the replies to GET /v1/models: the folder whose slots this server serves."""

BASE_HEADER = "x-lora-assets-base"
"""On the same replies, once it is known: the digest or the commit of the base model."""


def adapters_dir() -> Path:
    """The folder of this server's adapters: $ADAPTERS_DIR, or /mnt/adapters."""
    return Path(os.environ.get("ADAPTERS_DIR", "/mnt/adapters"))


def named_folder(folder: Path, name: str) -> Path | None:
    """The digest folder of an adapter's own name; None where there is no such link.

    Names come from requests: what is no plain name, or a link out of `folder`, is no name.
    """
    if not is_name(name):
        return None
    try:
        target = (folder / NAMES / name).readlink()
        inside = (
            target.parent == Path("..") and target.name != ".." and (folder / target.name).is_dir()
        )
    except (OSError, ValueError):
        return None
    # Not resolved any further: the path is the one that adapters are loaded from by API.
    return folder / target.name if inside and not (folder / target.name).is_symlink() else None


class SlotMiddleware:
    """Puts an adapter's own name in place of a slot's, and lists slots beside the adapters.

    A reply names the adapter that gave it, so a client can tell which one it was. Where loads have
    a key of their own, only the folder's own adapters are loaded (`loads_own_alone`).
    """

    def __init__(
        self,
        app: App,
        folder: Path | None = None,
        base: str | None = None,
        loads_own_alone: bool = False,
    ) -> None:
        self._app = app
        self._folder = folder or adapters_dir()
        self._base = ServedBase(base)
        self._loads_own_alone = loads_own_alone

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            if scope["method"] == "POST":
                messages = await _read(receive)
                body = b"".join(message.get("body", b"") for message in messages)
                if self._loads_own_alone and scope["path"] == LOADS and self._is_foreign(body):
                    wanted = f"{self._folder}/<digest>, under a name that ends in its beginning"
                    await refuse(scope, send, 403, f"An adapter is loaded from {wanted}")
                    return
                receive = self._with_own_name(scope, body, messages, receive)
            elif scope["method"] == "GET" and scope["path"] == "/v1/models":
                send = self._with_slots(send)
        await self._app(scope, receive, send)

    def _is_foreign(self, body: bytes) -> bool:
        """Whether a load that must be one of ours is another; vLLM would ask a hub for a name."""
        try:
            asked = json.loads(body)
            name, path = asked["lora_name"], asked["lora_path"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return False  # The server has its own words for that.
        digest = str(path).removeprefix(f"{self._folder}/")
        is_own = re.fullmatch(r"[0-9a-f]{64}", digest) and str(name).endswith(f"-{digest[:12]}")
        return not is_own

    def _with_own_name(
        self, scope: Scope, body: bytes, messages: list[Message], receive: Receive
    ) -> Receive:
        renamed = self._renamed(body)
        if renamed is not None:
            scope["headers"] = _with_length(scope["headers"], len(renamed))
            messages = [{"type": "http.request", "body": renamed, "more_body": False}]
        waiting = iter(messages)

        async def replay() -> Message:
            return next(waiting, None) or await receive()

        return replay

    def _renamed(self, body: bytes) -> bytes | None:
        """The body for the server, or None where no slot is asked for."""
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            return None  # The server has its own words for that.
        if not isinstance(asked, dict) or not isinstance(asked.get("model"), str):
            return None
        name = slots(self._folder).get(asked["model"])
        return json.dumps({**asked, "model": name}).encode() if name is not None else None

    def _with_slots(self, send: Send) -> Send:
        start: Message = {}
        body = bytearray()

        async def collect(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            body.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            headers = [*start["headers"], (FOLDER_HEADER.encode(), str(self._folder).encode())]
            whole, base = bytes(body), None
            if start["status"] == 200:
                models = json.loads(body)
                base = self._base_of(models)
                whole = self._listing(models)
            if base is not None:
                headers.append((BASE_HEADER.encode(), base.encode()))
            await send({**start, "headers": _with_length(headers, len(whole))})
            await send({"type": "http.response.body", "body": whole})

        return collect

    def _base_of(self, models: Mapping[str, Any]) -> str | None:
        sources = (str(card["root"]) for card in models["data"] if card.get("parent") is None)
        source = next(sources, None)
        return None if source is None else self._base.identity(source)

    def _listing(self, models: dict[str, Any]) -> bytes:
        cards: Mapping[str, dict[str, Any]] = {card["id"]: card for card in models["data"]}
        for slot, name in sorted(slots(self._folder).items()):
            if name in cards:
                models["data"].append({**cards[name], "id": slot})
        return json.dumps(models).encode()


async def _read(receive: Receive) -> list[Message]:
    """The messages of a request, to its end."""
    messages = [await receive()]
    while messages[-1]["type"] == "http.request" and messages[-1].get("more_body"):
        messages.append(await receive())
    return messages


def _with_length(headers: list[tuple[bytes, bytes]], length: int) -> list[tuple[bytes, bytes]]:
    others = [(name, value) for name, value in headers if name.lower() != b"content-length"]
    return [*others, (b"content-length", str(length).encode())]
