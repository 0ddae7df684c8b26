"""What every kind of object shares: lists, selectors, and refusals."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, TypeVar

from aiohttp import web


class Refused(Exception):
    """The request is answered with a Status of this code, reason and message."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason

    def reply(self) -> web.Response:
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        told = {"message": str(self), "reason": self.reason, "code": self.code}
        return web.json_response({**status, **told}, status=self.code)


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
    raise Refused(404, "NotFound", f'{kind} "{wanted[1]}" not found')


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


def listed(
    request: web.Request, version: str, kind: str, objects: Iterable[Mapping[str, Any]]
) -> web.Response:
    """A list of what the request's label and field selectors take."""
    name = "involvedObject.name" if kind == "EventList" else "metadata.name"
    labels, names = _terms(request, "labelSelector"), _terms(request, "fieldSelector")
    if other := [term["key"] for term in names if term["key"] != name]:
        raise Refused(400, "BadRequest", f'field label "{other[0]}" not supported')
    items = [
        each
        for each in objects
        if _is_taken(labels, each["metadata"].get("labels", {}))
        and _is_taken(names, {name: each["metadata"]["name"]})
    ]
    whole = {"apiVersion": version, "kind": kind, "metadata": {"resourceVersion": "1"}}
    return web.json_response({**whole, "items": items})


_TERM = re.compile(
    r"\s*(?P<no>!)?(?P<key>[\w./-]+)"
    r"(\s*(?P<sign>==?|!=)\s*(?P<one>[\w.-]*)|\s+(?P<set>in|notin)\s*\((?P<many>[^()]*)\))?\s*"
)


def _terms(request: web.Request, selector: str) -> list[re.Match[str]]:
    """The requirements of a selector, as Kubernetes writes them."""
    parts = re.findall(r"[^,(]+(?:\([^)]*\))?", request.query.get(selector, ""))
    terms = [_TERM.fullmatch(part) for part in parts]
    if None in terms:
        raise Refused(400, "BadRequest", f"unable to parse requirement in {parts}")
    return [term for term in terms if term]


def _is_taken(terms: Iterable[re.Match[str]], values: Mapping[str, str]) -> bool:
    return all(_takes(term, values.get(term["key"])) for term in terms)


def _takes(term: re.Match[str], value: str | None) -> bool:
    if term["sign"]:
        return (value == term["one"]) == (term["sign"] != "!=")
    if term["set"]:
        return (value in re.split(r"\s*,\s*", term["many"].strip())) == (term["set"] == "in")
    return (value is None) == bool(term["no"])
