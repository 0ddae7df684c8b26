"""What every kind of object shares: lists in pages, selectors, and failures."""

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
    """Whether the request's label selector, of equalities only, takes these labels."""
    return _agrees(request.query.get("labelSelector", ""), labels)


def has_fields(request: web.Request, fields: Mapping[str, str]) -> bool:
    """Whether the request's field selector, of equalities only, takes these fields."""
    return _agrees(request.query.get("fieldSelector", ""), fields)


def _agrees(selector: str, values: Mapping[str, str]) -> bool:
    wanted = [part.split("=") for part in selector.split(",") if part]
    return all(values.get(key) == value for key, value in wanted)


def not_found(request: web.Request, kind: str) -> web.Response:
    return failure(404, "NotFound", f'{kind} "{request.match_info["name"]}" not found')


def failure(code: int, reason: str, message: str) -> web.Response:
    status = {"kind": "Status", "status": "Failure", "message": message, "reason": reason}
    return web.json_response({**status, "code": code}, status=code)
