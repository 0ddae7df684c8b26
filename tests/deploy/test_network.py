"""Which connections the network policies allow, evaluated as Kubernetes does."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network

import pytest
import yaml

from tests.support.doubles.dagster_chart import NAMESPACE, objects
from tests.support.manifests import DATA, PODS, Object, dagster_values, of_kind

TABLE = yaml.safe_load((DATA / "connections.yaml").read_text())
CONNECTIONS = [
    (verdict, source, target, port)
    for verdict in ("allowed", "refused")
    for source, targets in TABLE[verdict].items()
    for target, ports in targets.items()
    for port in ports
]


@dataclass(frozen=True)
class Peer:
    """A pod, or with `ip` a host outside the cluster."""

    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    ip: str = ""


WORKLOADS = {
    **{f"{m.kind} {m.name}": Peer(str(m.namespace), m.pod_labels, m.ports) for m in PODS},
    **{
        f"{made['kind']} {made['name']}": Peer(NAMESPACE, made["labels"])
        for made in objects(dagster_values())
        if "labels" in made
    },
}


def peer(name: str) -> Peer:
    described = TABLE["peers"][name]
    return WORKLOADS[described["workload"]] if "workload" in described else Peer(**described)


@pytest.mark.parametrize(("verdict", "source", "target", "port"), CONNECTIONS)
def test_the_policies_allow_what_is_needed_and_nothing_else(
    verdict: str, source: str, target: str, port: int
) -> None:
    assert allowed(peer(source), peer(target), port) == (verdict == "allowed")


def allowed(source: Peer, target: Peer, port: int) -> bool:
    """Return whether both ends allow it; one that no policy selects allows everything."""
    return _end(source, target, "Egress", target.ports, port) and _end(
        target, source, "Ingress", target.ports, port
    )


def _end(here: Peer, there: Peer, direction: str, named: Mapping[str, int], port: int) -> bool:
    specs = [p.content["spec"] for p in of_kind("NetworkPolicy") if p.namespace == here.namespace]
    selecting = [
        spec
        for spec in specs
        if direction in spec["policyTypes"] and _matches(spec["podSelector"], here.labels)
    ]
    side = {"Egress": "to", "Ingress": "from"}[direction]
    return not selecting or any(
        any(_is(there, each, here.namespace) for each in rule[side])
        and any(
            named.get(p["port"], p["port"]) == port for p in rule.get("ports", [{"port": port}])
        )
        for spec in selecting
        for rule in spec.get(direction.lower(), ())
    )


def _is(there: Peer, described: Object, own_namespace: str) -> bool:
    if there.ip or "ipBlock" in described:
        block = described.get("ipBlock", {}).get("cidr")
        return bool(there.ip and block) and ip_address(there.ip) in ip_network(block)
    name = "kubernetes.io/metadata.name"
    namespace = {**TABLE["namespaces"][there.namespace], name: there.namespace}
    own = {"matchLabels": {name: own_namespace}}
    return _matches(described.get("namespaceSelector", own), namespace) and _matches(
        described.get("podSelector", {}), there.labels
    )


def _matches(selector: Object, labels: Mapping[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    expressions = selector.get("matchExpressions", ())
    assert {expression["operator"] for expression in expressions} <= {"Exists", "In"}
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        each["key"] in labels and labels[each["key"]] in each.get("values", labels.values())
        for each in expressions
    )
