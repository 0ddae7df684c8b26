"""What every kind of object shares: lists in pages, selectors, and failures."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from aiohttp import web


class NotFound(Exception):
    """No object of the kind that is given has the request's name."""


class Named(Protocol):
    """What finds an object."""

    name: str
    namespace: str


Object = TypeVar("Object", bound=Named)


def named(request: web.Request, kind: str, objects: Iterable[Object]) -> Object:
    """The object that the request names."""
    wanted = request.match_info["namespace"], request.match_info["name"]
    for each in objects:
        if (each.namespace, each.name) == wanted:
            return each
    raise NotFound(kind)


class PodState(Named, Protocol):
    """What a pod's metadata are made of, besides."""

    labels: Mapping[str, str]
    deleted: bool


def pod_json(
    pod: PodState, spec: Mapping[str, Any], status: Mapping[str, Any]
) -> Mapping[str, Any]:
    """A pod as the API gives it."""
    metadata = {"name": pod.name, "namespace": pod.namespace, "labels": dict(pod.labels)}
    if pod.deleted:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


def page(
    request: web.Request,
    version: str,
    kind: str,
    objects: Sequence[Mapping[str, Any]],
    page_size: int = 500,
) -> web.Response:
    """A list of what the request's selectors take, of which it names the part that it wants."""
    items = [each for each in objects if _is_selected(request, each["metadata"])]
    start = int(request.query.get("continue", 0))
    end = start + min(int(request.query.get("limit", page_size)), page_size)
    more = {"continue": str(end)} if end < len(items) else {}
    return web.json_response(
        {"apiVersion": version, "kind": kind, "metadata": more, "items": items[start:end]}
    )


def _is_selected(request: web.Request, metadata: Mapping[str, Any]) -> bool:
    """Whether label selectors (equalities and sets) and field selectors (the name) take it."""
    terms = re.findall(r"[^,(]+(?:\([^)]*\))?", request.query.get("labelSelector", ""))
    fields = filter(None, request.query.get("fieldSelector", "").split(","))
    named = {"metadata.name": metadata["name"]}
    return all(_takes(term, metadata.get("labels", {})) for term in terms) and all(
        _takes(term, named) for term in fields
    )


def _takes(term: str, values: Mapping[str, str]) -> bool:
    if among := re.fullmatch(r"(\S+) (in|notin) \((.*)\)", term):
        return (values.get(among[1]) in among[3].split(",")) == (among[2] == "in")
    key, equals, value = term.partition("=")
    if equals:
        return values.get(key) == value
    return key[1:] not in values if key.startswith("!") else key in values


def failure(code: int, reason: str, message: str) -> web.Response:
    status = {"kind": "Status", "status": "Failure", "message": message, "reason": reason}
    return web.json_response({**status, "code": code}, status=code)
