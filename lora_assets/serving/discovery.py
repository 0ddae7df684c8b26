"""The pods that replicas run in, as Kubernetes knows them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from kubernetes.client import (
    ApiClient,
    AppsV1Api,
    DiscoveryV1Api,
    V1EndpointSlice,
    V1EndpointSliceList,
    V1LabelSelector,
    V1Pod,
    V1PodList,
)

from lora_assets.errors import LoraAssetsError
from lora_assets.serving.cluster_api import REQUEST_TIMEOUT_S, api_errors, core_api

State = Literal["ready", "not ready", "terminating", "pending"]
_PAGE = 500  # Objects in one reply, as kubectl asks for them.


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


def from_service(
    namespace: str, service: str, *, port_name: str | None = None, scheme: str = "http"
) -> tuple[DiscoveredReplica, ...]:
    """Return the pods behind a Service by name, whatever their state.

    `port_name` says which port where the Service has several. Raise LoraAssetsError where there
    is no pod behind it, for an endpoint that is not a pod, and when the API can't be asked.
    """
    discovery = DiscoveryV1Api(core_api().api_client)
    with api_errors(f"read the endpoints of service {namespace}/{service}"):
        slices = list(
            _items(
                discovery.list_namespaced_endpoint_slice,
                namespace,
                f"kubernetes.io/service-name={service}",
            )
        )
    # A pod may be in several slices: while they are rearranged, and once for each IP family.
    slices.sort(key=lambda part: str(part.address_type))
    by_pod: dict[str, DiscoveredReplica] = {}
    for part in slices:
        for replica in _of_slice(part, namespace, service, port_name, scheme):
            known = by_pod.setdefault(replica.pod, replica)
            if known.url == replica.url and replica.state == "ready":
                by_pod[replica.pod] = replica
    return _sorted(
        by_pod.values(),
        f"There is no pod behind service {namespace}/{service}",
        "Check that the service exists and that its selector names the labels of the vLLM pods.",
    )


def from_selector(
    namespace: str, label_selector: str, port: int, *, scheme: str = "http"
) -> tuple[DiscoveredReplica, ...]:
    """Return the pods with these labels (`a=b,c=d`) by name, whatever their state.

    Pods that have ended are left out. Raise LoraAssetsError where no other is there, and when
    the API can't be asked.
    """
    with api_errors(f"list pods {label_selector} in {namespace}"):
        pods = list(_items(core_api().list_namespaced_pod, namespace, label_selector))
    return _sorted(
        (
            DiscoveredReplica(
                url=_url(scheme, pod.status.pod_ip, port) if pod.status.pod_ip else "",
                namespace=namespace,
                pod=pod.metadata.name,
                state=_state(pod),
                node=pod.spec.node_name,
            )
            for pod in pods
            if pod.status.phase not in ("Succeeded", "Failed")
        ),
        f"There is no running pod {label_selector} in namespace {namespace}",
        "Check that the selector names the labels of the vLLM pods.",
    )


def from_deployment(namespace: str, deployment: str, port: int) -> tuple[DiscoveredReplica, ...]:
    """Return the pods that a Deployment selects, by name, as `from_selector` gives them."""
    apps = AppsV1Api(core_api().api_client)
    with api_errors(f"read deployment {namespace}/{deployment}"):
        read = apps.read_namespaced_deployment(
            deployment, namespace, _request_timeout=REQUEST_TIMEOUT_S
        )
    return from_selector(namespace, _labels(read.spec.selector), port)


def _labels(selector: V1LabelSelector) -> str:
    """Return a Deployment's selector in the form in which pods are listed by it."""
    parts = [f"{key}={value}" for key, value in (selector.match_labels or {}).items()]
    for term in selector.match_expressions or []:
        values = ",".join(term.values or [])
        parts.append(
            {
                "In": f"{term.key} in ({values})",
                "NotIn": f"{term.key} notin ({values})",
                "Exists": term.key,
                "DoesNotExist": f"!{term.key}",
            }[term.operator]
        )
    return ",".join(parts)


def _of_slice(
    part: V1EndpointSlice, namespace: str, service: str, port_name: str | None, scheme: str
) -> Iterator[DiscoveredReplica]:
    ports = [p for p in part.ports or [] if port_name is None or (p.name or "") == port_name]
    for endpoint in part.endpoints or []:
        conditions = endpoint.conditions
        # Unknown means ready: so the API defines it.
        ready = conditions is None or conditions.ready is not False
        state: State = "ready" if ready else "not ready"
        if len(ports) != 1 or ports[0].port is None:
            names = ", ".join(repr(p.name or "") for p in part.ports or []) or "none"
            raise LoraAssetsError(
                f"Which port of service {namespace}/{service} is vLLM's is not clear "
                f"(asked for: {port_name or 'the only one'}; there: {names})",
                "Give the name of that port in the service.",
            )
        target = endpoint.target_ref
        if target is None or target.kind != "Pod" or target.name is None:
            raise LoraAssetsError(
                f"Endpoint {endpoint.addresses[0]} of service {namespace}/{service} is not a pod",
                "Use a service that selects the vLLM pods.",
            )
        yield DiscoveredReplica(
            url=_url(scheme, endpoint.addresses[0], ports[0].port),
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


def _items(
    listing: Callable[..., V1PodList | V1EndpointSliceList], namespace: str, selector: str
) -> Iterator[Any]:
    page: dict[str, str] = {}
    while True:
        reply = listing(
            namespace,
            label_selector=selector,
            limit=_PAGE,
            _request_timeout=REQUEST_TIMEOUT_S,
            **page,
        )
        yield from reply.items
        # The attribute's own name changed between releases of the client; the API's did not.
        metadata = ApiClient().sanitize_for_serialization(reply.metadata) or {}
        if not metadata.get("continue"):
            return
        page = {"_continue": metadata["continue"]}


def _url(scheme: str, address: str, port: int) -> str:
    return f"{scheme}://[{address}]:{port}" if ":" in address else f"{scheme}://{address}:{port}"


def _sorted(
    unsorted: Iterable[DiscoveredReplica], cause: str, remedy: str
) -> tuple[DiscoveredReplica, ...]:
    replicas = tuple(sorted(unsorted, key=lambda replica: replica.pod))
    if not replicas:
        raise LoraAssetsError(cause, remedy)
    return replicas
