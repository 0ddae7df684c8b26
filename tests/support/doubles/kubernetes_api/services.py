"""What pods belong to: Services, with the EndpointSlices made of them, and Deployments."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.doubles.kubernetes_api.pods import Pod


@dataclass
class Service:
    """A Service; each of its slices holds at most `slice_size` of the pods that it selects."""

    name: str
    selector: Mapping[str, str]
    ports: Mapping[str, int] = field(default_factory=lambda: {"http": 8000})
    namespace: str = "models"
    slice_size: int = 100
    targets: bool = True


@dataclass
class Deployment:
    """A Deployment; `selector` as its spec has it."""

    name: str
    selector: Mapping[str, Any]
    namespace: str = "models"

    def json(self) -> Mapping[str, Any]:
        spec = {"selector": self.selector, "template": {}}
        return {"metadata": {"name": self.name}, "spec": spec}


def slices_json(service: Service, pods: Sequence[Pod]) -> Iterator[Mapping[str, Any]]:
    behind = [p for p in pods if p.ip and service.selector.items() <= p.labels.items()]
    for family, sign in (("IPv4", "."), ("IPv6", ":")):
        members = [_endpoint_json(pod, service.targets) for pod in behind if sign in str(pod.ip)]
        for start in range(0, len(members), service.slice_size):
            yield {
                "metadata": {
                    "name": f"{service.name}-{family.lower()}-{start}",
                    "labels": {"kubernetes.io/service-name": service.name},
                },
                "addressType": family,
                "endpoints": members[start : start + service.slice_size],
                "ports": [{"name": n, "port": p} for n, p in service.ports.items()],
            }


def _endpoint_json(pod: Pod, target: bool) -> Mapping[str, object]:
    state = {} if pod.ready is None else {"ready": pod.ready and not pod.deleted}
    return {
        "addresses": [pod.ip],
        "conditions": {**state, "terminating": pod.deleted},
        **({"nodeName": pod.node} if pod.node else {}),
        **({"targetRef": {"kind": "Pod", "name": pod.name}} if target else {}),
    }
