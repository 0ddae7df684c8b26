"""A double of Dagster's Helm chart: names, labels, ports and images of its objects.

The names follow the chart's own templates (`dagster.fullname`, `dagster.webserver.fullname`,
`dagster.postgresql.fullname`). A test compares them with what Helm rendered from the real chart.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.doubles.dagster_chart import RELEASE, Values

CHART_VERSION = "1.13.27"
WORKSPACE = "-w /dagster-workspace/workspace.yaml"
POSTGRESQL = "docker.io/library/postgres:14.6"
BUSYBOX = "docker.io/busybox:1.28"

Object = Mapping[str, Any]


def objects(values: Values, version: str = CHART_VERSION) -> Sequence[Object]:
    """Return every Secret, ConfigMap, Service and workload of the release."""
    users = values["dagster-user-deployments"]
    (deployment,) = users["deployments"]
    code, port = deployment["name"], deployment["port"]
    override = values["dagsterWebserver"].get("nameOverride", "dagster-webserver")
    webserver = f"{RELEASE}-{override}"
    subchart = _fullname("dagster-user-deployments")
    selected = _labels("dagster", component="dagster-webserver")
    code_labels = _labels("dagster-user-deployments", component="user-deployments", deployment=code)
    daemon_labels = _labels("dagster", component="dagster-daemon", deployment="daemon")
    image = f"docker.io/dagster/dagster-celery-k8s:{version}"
    account = values["serviceAccount"]["name"]
    http = values["dagsterWebserver"]["service"]["port"]
    return [
        *(_postgresql() if values["postgresql"]["enabled"] else ()),
        *_config_maps(subchart, code),
        _service(code, {"grpc": port}, code_labels),
        _service(webserver, {"http": http}, selected),
        _workload(
            f"{subchart}-{code}",
            code_labels,
            users["serviceAccount"]["name"],
            {
                "image": "{repository}:{tag}".format(**deployment["image"]),
                "words": [
                    *("dagster", "api", "grpc", "-h", "0.0.0.0", "-p", str(port)),
                    *deployment["dagsterApiGrpcArgs"],
                ],
            },
        ),
        *(
            _workload(name, labels, account, *_waits(values, code), _shell(image, command))
            for name, labels, command in (
                (
                    f"{_fullname('dagster')}-daemon",
                    daemon_labels,
                    f"dagster-daemon run {WORKSPACE}",
                ),
                (webserver, selected, f"dagster-webserver -h 0.0.0.0 -p {http} {WORKSPACE}"),
            )
        ),
    ]


def _fullname(chart: str) -> str:
    return RELEASE if chart in RELEASE else f"{RELEASE}-{chart}"


def _labels(name: str, **labels: str) -> Mapping[str, str]:
    return {"app.kubernetes.io/name": name, "app.kubernetes.io/instance": RELEASE, **labels}


def _config_maps(subchart: str, code: str) -> Sequence[Object]:
    shared = ("HOME", "K8S_PIPELINE_RUN_ENV_CONFIGMAP", "K8S_PIPELINE_RUN_NAMESPACE")
    image = ("K8S_PIPELINE_RUN_IMAGE", "K8S_PIPELINE_RUN_IMAGE_PULL_POLICY")
    main = _fullname("dagster")
    keys = {
        f"{subchart}-user-deployments-shared-env": [f"DAGSTER_{key}" for key in shared],
        f"{subchart}-{code}-user-env": [],
        **{
            f"{main}-{part}-env": sorted(f"DAGSTER_{key}" for key in (*shared, *image))
            for part in ("daemon", "pipeline", "webserver")
        },
        f"{main}-instance": ["dagster.yaml"],
        f"{main}-workspace-yaml": ["workspace.yaml"],
    }
    return [{"kind": "ConfigMap", "name": name, "keys": each} for name, each in keys.items()]


def _postgresql() -> Sequence[Object]:
    name = f"{RELEASE}-postgresql"
    port, master = {"tcp-postgresql": 5432}, {"app": "postgresql", "release": RELEASE}
    labels = {**master, "chart": "postgresql-8.1.0", "heritage": "Helm", "role": "master"}
    return [
        *(
            {"kind": "Secret", "name": secret, "keys": ["postgresql-password"]}
            for secret in (name, f"{name}-secret")
        ),
        _service(f"{name}-headless", port, master),
        _service(name, port, {**master, "role": "master"}),
        {
            **_workload(
                name,
                labels,
                None,
                {"image": "docker.io/bitnami/minideb:stretch", "words": []},
                {"image": POSTGRESQL, "words": []},
            ),
            "kind": "StatefulSet",
        },
    ]


def _waits(values: Values, code: str) -> Sequence[Object]:
    database = values["postgresql"]
    host = database.get("postgresqlHost") or f"{RELEASE}-postgresql"
    port = database.get("service", {}).get("port", 5432)
    user = database.get("postgresqlUsername", "test")
    ready = f"pg_isready -h {host} -p {port} -U {user}"
    return [
        _shell(POSTGRESQL, f"until {ready}; do echo waiting for database; sleep 2; done;", "sh"),
        _shell(
            BUSYBOX, f"until nslookup {code}; do echo waiting for user service; sleep 2; done", "sh"
        ),
    ]


def _shell(image: str, command: str, shell: str = "/bin/bash") -> Object:
    return {"image": image, "words": [shell, "-c", command]}


def _service(name: str, ports: Mapping[str, int], selector: Mapping[str, str]) -> Object:
    return {"kind": "Service", "name": name, "ports": ports, "selector": selector}


def _workload(
    name: str, labels: Mapping[str, str], account: str | None, *containers: Object
) -> Object:
    return {
        "kind": "Deployment",
        "name": name,
        "labels": labels,
        "account": account,
        "containers": containers,
    }
