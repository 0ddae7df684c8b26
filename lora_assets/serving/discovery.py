"""The pods that replicas run in, as Kubernetes knows them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from kubernetes.client import (
    AppsV1Api,
    DiscoveryV1Api,
    V1Endpoint,
    V1EndpointSlice,
    V1LabelSelector,
    V1Pod,
)

from lora_assets.errors import LoraAssetsError
from lora_assets.serving.cluster_api import api_errors, ask, core_api

State = Literal["ready", "not ready", "terminating", "pending"]
_EXPRESSIONS = {
    "In": "{key} in ({values})",
    "NotIn": "{key} notin ({values})",
    "Exists": "{key}",
    "DoesNotExist": "!{key}",
}
"""How an operator of a label selector's expressions is written where pods are listed."""


@dataclass(frozen=True)
class DiscoveredReplica:
    """A replica, the pod that it runs in, the pod's node, and its state as Kubernetes judges it.

    A pod that has no address yet is `pending`, and its URL is empty.
    """

    url: str
    namespace: str
    pod: str
    state: State
    node: str | None = None

    @property
    def name(self) -> str:
        """What verdicts and tables call the replica."""
        return f"{self.pod} on {self.node}" if self.node else self.pod


def from_service(namespace: str, service: str) -> tuple[DiscoveredReplica, ...]:
    """Return the pods behind a Service by name, whatever their state.

    Raise LoraAssetsError where there is no pod behind it, for a Service of several ports, for an
    endpoint that is not a pod, and when the API can't be asked.
    """
    where = f"service {namespace}/{service}"
    with api_errors(f"read the endpoints of {where}"):
        slices = ask(
            DiscoveryV1Api(core_api().api_client).list_namespaced_endpoint_slice,
            namespace,
            label_selector=f"kubernetes.io/service-name={service}",
        )
    # A pod may be in several slices: while they are rearranged, and once for each IP family.
    replicas = [
        (part.address_type, _behind(part, endpoint, namespace, where))
        for part in slices.items
        for endpoint in part.endpoints or []
    ]
    replicas.sort(key=lambda each: (each[0], each[1].state != "ready"), reverse=True)
    return _by_name(
        {replica.pod: replica for _, replica in replicas}.values(),
        f"There is no pod behind {where}",
        "Check that the service exists and that its selector names the labels of the vLLM pods.",
    )


def from_selector(namespace: str, label_selector: str, port: int) -> tuple[DiscoveredReplica, ...]:
    """Return the pods with these labels (`a=b,c=d`) by name, whatever their state.

    Pods that have ended are left out. Raise LoraAssetsError where no other is there, and when
    the API can't be asked.
    """
    with api_errors(f"list pods {label_selector} in {namespace}"):
        pods = ask(core_api().list_namespaced_pod, namespace, label_selector=label_selector)
    return _by_name(
        (
            DiscoveredReplica(
                url=_url(pod.status.pod_ip, port) if pod.status.pod_ip else "",
                namespace=namespace,
                pod=pod.metadata.name,
                state=_state(pod),
                node=pod.spec.node_name,
            )
            for pod in pods.items
            if pod.status.phase not in ("Succeeded", "Failed")
        ),
        f"There is no running pod {label_selector} in namespace {namespace}",
        "Check that the selector names the labels of the vLLM pods.",
    )


def from_deployment(namespace: str, deployment: str, port: int) -> tuple[DiscoveredReplica, ...]:
    """Return the pods that a Deployment selects, by name, as `from_selector` gives them."""
    with api_errors(f"read deployment {namespace}/{deployment}"):
        apps = AppsV1Api(core_api().api_client)
        read = ask(apps.read_namespaced_deployment, deployment, namespace)
    return from_selector(namespace, _labels(read.spec.selector), port)


def _labels(selector: V1LabelSelector) -> str:
    """Return a Deployment's selector in the form in which pods are listed by it."""
    parts = [f"{key}={value}" for key, value in (selector.match_labels or {}).items()]
    for term in selector.match_expressions or []:
        form = _EXPRESSIONS[term.operator]
        parts.append(form.format(key=term.key, values=",".join(term.values or [])))
    return ",".join(parts)


def _behind(
    part: V1EndpointSlice, endpoint: V1Endpoint, namespace: str, where: str
) -> DiscoveredReplica:
    """Return the pod behind an endpoint of the Service that `where` names."""
    if len(part.ports or []) != 1 or part.ports[0].port is None:
        names = ", ".join(repr(port.name or "") for port in part.ports or []) or "none"
        raise LoraAssetsError(
            f"Cannot tell which port of {where} is vLLM's (there: {names})",
            "Use a service whose only port is that of vLLM's API.",
        )
    address, target, conditions = endpoint.addresses[0], endpoint.target_ref, endpoint.conditions
    if target is None or target.kind != "Pod" or target.name is None:
        raise LoraAssetsError(
            f"Endpoint {address} of {where} is not a pod",
            "Use a service that selects the vLLM pods.",
        )
    # Unknown means ready: so the API defines it.
    state: State = "not ready" if conditions and conditions.ready is False else "ready"
    return DiscoveredReplica(
        url=_url(address, part.ports[0].port),
        namespace=namespace,
        pod=target.name,
        state="terminating" if conditions and conditions.terminating else state,
        node=endpoint.node_name,
    )


def _state(pod: V1Pod) -> State:
    if pod.metadata.deletion_timestamp is not None:
        return "terminating"
    if not pod.status.pod_ip:
        return "pending"
    conditions = pod.status.conditions or []
    ready = any(each.type == "Ready" and each.status == "True" for each in conditions)
    return "ready" if ready else "not ready"


def _url(address: str, port: int) -> str:
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"


def _by_name(
    replicas: Iterable[DiscoveredReplica], cause: str, remedy: str
) -> tuple[DiscoveredReplica, ...]:
    ordered = tuple(sorted(replicas, key=lambda replica: replica.pod))
    if not ordered:
        raise LoraAssetsError(cause, remedy)
    return ordered
