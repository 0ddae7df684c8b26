"""A double of Dagster's Helm chart (1.13): what it makes of the values that we set.

Written after the chart's templates `configmap-instance.yaml`, `helpers/instance/*.tpl` and
dagster-user-deployments' `k8sContainerContext`, because the chart is on no package index. A key
that these don't read is refused, so that a value of ours can't be lost in it.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

Values = Mapping[str, Any]

RELEASE = NAMESPACE = "dagster"
ELSEWHERE = {
    *("serviceAccount", "rbacEnabled", "generatePostgresqlPasswordSecret"),
    *("dagsterWebserver", "dagster-user-deployments"),
}
"""Values that other templates read: accounts, roles, secrets and deployments."""

DEFAULTS: Values = {
    "global": {
        "dagsterHome": "/opt/dagster/dagster_home",
        "postgresqlSecretName": "dagster-postgresql-secret",
    },
    "postgresql": {
        "postgresqlHost": "",
        "postgresqlUsername": "test",
        "postgresqlDatabase": "test",
        "postgresqlParams": {},
        "postgresqlScheme": "",
        "service": {"port": 5432},
    },
    "runLauncher": {
        "config": {"k8sRunLauncher": {"imagePullPolicy": "Always", "loadInclusterConfig": True}}
    },
    "dagsterDaemon": {
        "runCoordinator": {
            "config": {"queuedRunCoordinator": {"dequeueUseThreads": True, "dequeueNumWorkers": 4}}
        },
        "sensors": {"useThreads": True, "numWorkers": 4},
        "schedules": {"useThreads": True, "numWorkers": 4},
    },
    "concurrency": {"enabled": False, "pools": {}, "runs": {}},
    "additionalInstanceConfig": {},
}
"""The chart's own values, as far as they reach dagster.yaml."""


def merged(*values: Values) -> Values:
    """Values over values, as Helm lays several files: maps are merged, everything else replaced."""
    made: dict[str, Any] = {}
    for layer in values:
        for key, value in layer.items():
            both = isinstance(value, Mapping) and isinstance(made.get(key), Mapping)
            made[key] = merged(made[key], value) if both else value
    return made


def instance_config(values: Values) -> Mapping[str, Any]:
    """The instance's dagster.yaml, as a document."""
    of_chart = merged(DEFAULTS, values)
    _refuse_others(of_chart, {*DEFAULTS, *ELSEWHERE, "telemetry"})
    database = {"config": {"postgres_db": _postgresql(of_chart["postgresql"])}}
    daemon, concurrency = of_chart["dagsterDaemon"], of_chart["concurrency"]
    _refuse_others(
        daemon,
        {
            *("enabled", "resources", "runCoordinator", "runMonitoring", "runRetries"),
            *("sensors", "schedules"),
        },
    )
    assert daemon["enabled"]
    return {
        "scheduler": {"module": "dagster.core.scheduler", "class": "DagsterDaemonScheduler"},
        "schedule_storage": {
            "module": "dagster_postgres.schedule_storage",
            "class": "PostgresScheduleStorage",
            **database,
        },
        "run_launcher": {
            "module": "dagster_k8s",
            "class": "K8sRunLauncher",
            "config": launcher_config(values),
        },
        "run_storage": {
            "module": "dagster_postgres.run_storage",
            "class": "PostgresRunStorage",
            **database,
        },
        "event_log_storage": {
            "module": "dagster_postgres.event_log",
            "class": "PostgresEventLogStorage",
            **database,
        },
        "run_coordinator": {
            "module": "dagster.core.run_coordinator",
            "class": "QueuedRunCoordinator",
            "config": _queue(daemon["runCoordinator"], concurrency["enabled"]),
        },
        "compute_logs": {
            "module": "dagster.core.storage.noop_compute_log_manager",
            "class": "NoOpComputeLogManager",
        },
        "run_monitoring": _snake(
            daemon["runMonitoring"],
            {
                *("enabled", "startTimeoutSeconds", "cancelTimeoutSeconds", "maxRuntimeSeconds"),
                *("maxResumeRunAttempts", "pollIntervalSeconds", "freeSlotsAfterRunEndSeconds"),
            },
        ),
        "run_retries": _snake(
            daemon["runRetries"], {"enabled", "maxRetries", "retryOnAssetOrOpFailure"}
        ),
        "sensors": _snake(daemon["sensors"], {"useThreads", "numWorkers"}),
        "schedules": _snake(daemon["schedules"], {"useThreads", "numWorkers"}),
        "telemetry": _snake(of_chart["telemetry"], {"enabled"}),
        **({"concurrency": _concurrency(concurrency)} if concurrency["enabled"] else {}),
        **of_chart["additionalInstanceConfig"],
    }


def launcher_config(values: Values) -> Mapping[str, Any]:
    """What K8sRunLauncher is told."""
    of_chart = merged(DEFAULTS, values)
    _refuse_others(of_chart["runLauncher"], {"type", "config"})
    assert of_chart["runLauncher"]["type"] == "K8sRunLauncher"
    _refuse_others(of_chart["runLauncher"]["config"], {"k8sRunLauncher"})
    told = _snake(
        of_chart["runLauncher"]["config"]["k8sRunLauncher"],
        {
            *("loadInclusterConfig", "jobNamespace", "imagePullPolicy", "volumes", "volumeMounts"),
            *("labels", "resources", "failPodOnRunFailure", "securityContext", "runK8sConfig"),
        },
    )
    pods = _snake(
        told["run_k8s_config"],
        {
            *("containerConfig", "podSpecConfig", "podTemplateSpecMetadata"),
            *("jobSpecConfig", "jobMetadata"),
        },
    )
    return {
        **told,
        "run_k8s_config": pods,
        "service_account_name": values["serviceAccount"]["name"],
        "dagster_home": of_chart["global"]["dagsterHome"],
        "instance_config_map": f"{RELEASE}-instance",
        "postgres_password_secret": of_chart["global"]["postgresqlSecretName"],
    }


def container_context(values: Values) -> Mapping[str, Any]:
    """What runs and steps of the one code location get from it."""
    users = values["dagster-user-deployments"]
    _refuse_others(
        users, {"enabled", "enableSubchart", "serviceAccount", "rbacEnabled", "deployments"}
    )
    assert users["enabled"]
    assert users["enableSubchart"]
    (deployment,) = users["deployments"]
    _refuse_others(
        deployment,
        {
            *("name", "image", "dagsterApiGrpcArgs", "port", "includeConfigInLaunchedRuns"),
            *("env", "volumes", "volumeMounts", "podSecurityContext", "securityContext"),
            "resources",
        },
    )
    assert deployment["includeConfigInLaunchedRuns"] == {"enabled": True}
    # Neither of the security contexts is among them.
    return {
        "k8s": {
            "image_pull_policy": deployment["image"]["pullPolicy"],
            "env_config_maps": [
                f"{RELEASE}-dagster-user-deployments-{deployment['name']}-user-env"
            ],
            "volume_mounts": deployment["volumeMounts"],
            "volumes": deployment["volumes"],
            "resources": deployment["resources"],
            "namespace": NAMESPACE,
            "service_account_name": users["serviceAccount"]["name"],
            "env": deployment["env"],
            "run_k8s_config": {"pod_spec_config": {"automount_service_account_token": True}},
        }
    }


def _postgresql(given: Values) -> Mapping[str, Any]:
    _refuse_others(given, {"enabled", *DEFAULTS["postgresql"]})
    return {
        "username": given["postgresqlUsername"],
        "password": {"env": "DAGSTER_PG_PASSWORD"},
        "hostname": given["postgresqlHost"] or f"{RELEASE}-postgresql",
        "db_name": given["postgresqlDatabase"],
        "port": given["service"]["port"],
        "params": given["postgresqlParams"],
        **({"scheme": given["postgresqlScheme"]} if given["postgresqlScheme"] else {}),
    }


def _queue(given: Values, concurrency: bool) -> Mapping[str, Any]:
    _refuse_others(given, {"enabled", "type", "config"})
    assert given["enabled"]
    assert given["type"] == "QueuedRunCoordinator"
    _refuse_others(given["config"], {"queuedRunCoordinator"})
    told = _snake(
        given["config"]["queuedRunCoordinator"],
        {
            *("maxConcurrentRuns", "tagConcurrencyLimits", "dequeueIntervalSeconds"),
            *("dequeueUseThreads", "dequeueNumWorkers"),
        },
    )
    # Dagster refuses this one beside a `concurrency` that comes from elsewhere.
    return told if concurrency else {"max_concurrent_runs": -1, **told}


def _concurrency(given: Values) -> Mapping[str, Any]:
    _refuse_others(given, {"enabled", "pools", "runs"})
    return {
        "pools": _snake(given["pools"], {"defaultLimit", "granularity", "opGranularityRunBuffer"}),
        "runs": _snake(given["runs"], {"maxConcurrentRuns", "tagConcurrencyLimits"}),
    }


def _snake(given: Values, known: Iterable[str]) -> dict[str, Any]:
    """camelCase, as values are written, as snake_case, as Dagster reads it."""
    _refuse_others(given, known)
    return {
        re.sub(r"(?<=[a-z0-9])([A-Z])", lambda m: "_" + m[1].lower(), key): value
        for key, value in given.items()
    }


def _refuse_others(given: Values, known: Iterable[str]) -> None:
    unknown = given.keys() - set(known)
    assert not unknown, f"The chart reads no {', '.join(sorted(unknown))}"
