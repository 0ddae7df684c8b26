"""What every kind of object shares: lists in pages, selectors, and failures."""

import re
from collections.abc import Mapping, Sequence

from aiohttp import web


def page(
    request: web.Request, version: str, kind: str, items: Sequence[object], page_size: int
) -> web.Response:
    """A list, of which the request names the part that it wants."""
    start = int(request.query.get("continue", 0))
    end = start + min(int(request.query.get("limit", page_size)), page_size)
    more = {"continue": str(end)} if end < len(items) else {}
    return web.json_response(
        {"apiVersion": version, "kind": kind, "metadata": more, "items": items[start:end]}
    )


def selected(request: web.Request, labels: Mapping[str, str]) -> bool:
    """Whether the request's label selector, of equalities and sets, takes these labels."""
    terms = re.findall(r"[^,(]+(?:\([^)]*\))?", request.query.get("labelSelector", ""))
    return all(_takes(term, labels) for term in terms)


def has_fields(request: web.Request, fields: Mapping[str, str]) -> bool:
    """Whether the request's field selector, of equalities only, takes these fields."""
    wanted = filter(None, request.query.get("fieldSelector", "").split(","))
    return all(_takes(term, fields) for term in wanted)


def _takes(term: str, values: Mapping[str, str]) -> bool:
    if among := re.fullmatch(r"(\S+) (in|notin) \((.*)\)", term):
        return (values.get(among[1]) in among[3].split(",")) == (among[2] == "in")
    key, equals, value = term.partition("=")
    if equals:
        return values.get(key) == value
    return key[1:] not in values if key.startswith("!") else key in values


def not_found(request: web.Request, kind: str) -> web.Response:
    return failure(404, "NotFound", f'{kind} "{request.match_info["name"]}" not found')


def failure(code: int, reason: str, message: str) -> web.Response:
    status = {"kind": "Status", "status": "Failure", "message": message, "reason": reason}
    return web.json_response({**status, "code": code}, status=code)
