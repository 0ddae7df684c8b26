"""A double of Dagster's Helm chart (1.13): the configuration that it makes of our values.

Written after the chart's templates `configmap-instance.yaml`, `helpers/instance/*.tpl` and
dagster-user-deployments' `k8sContainerContext`, because the chart is on no package index. A key
that these templates don't read is refused, so that no value of ours is lost in them.
"""

import re
from collections.abc import Mapping
from typing import Any

Values = Mapping[str, Any]

RELEASE = NAMESPACE = "dagster"
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


READS: Mapping[str, str] = {
    "": "global postgresql runLauncher dagsterDaemon concurrency additionalInstanceConfig telemetry"
    " serviceAccount rbacEnabled generatePostgresqlPasswordSecret dagsterWebserver"
    " dagster-user-deployments",
    "postgresql": "enabled postgresqlHost postgresqlUsername postgresqlDatabase postgresqlParams"
    " postgresqlScheme service",
    "runLauncher": "type config",
    "runLauncher.config": "k8sRunLauncher",
    "runLauncher.config.k8sRunLauncher": "loadInclusterConfig jobNamespace imagePullPolicy volumes"
    " volumeMounts labels resources failPodOnRunFailure securityContext runK8sConfig",
    "runLauncher.config.k8sRunLauncher.runK8sConfig": "containerConfig podSpecConfig"
    " podTemplateSpecMetadata jobSpecConfig jobMetadata",
    "dagsterDaemon": "enabled resources runCoordinator runMonitoring runRetries sensors schedules",
    "dagsterDaemon.runCoordinator": "enabled type config",
    "dagsterDaemon.runCoordinator.config": "queuedRunCoordinator",
    "dagsterDaemon.runCoordinator.config.queuedRunCoordinator": "maxConcurrentRuns"
    " tagConcurrencyLimits dequeueIntervalSeconds dequeueUseThreads dequeueNumWorkers",
    "dagsterDaemon.runMonitoring": "enabled startTimeoutSeconds cancelTimeoutSeconds"
    " maxRuntimeSeconds maxResumeRunAttempts pollIntervalSeconds freeSlotsAfterRunEndSeconds",
    "dagsterDaemon.runRetries": "enabled maxRetries retryOnAssetOrOpFailure",
    "dagsterDaemon.sensors": "useThreads numWorkers",
    "dagsterDaemon.schedules": "useThreads numWorkers",
    "concurrency": "enabled pools runs",
    "concurrency.pools": "defaultLimit granularity opGranularityRunBuffer",
    "concurrency.runs": "maxConcurrentRuns tagConcurrencyLimits",
    "telemetry": "enabled",
    "dagster-user-deployments": "enabled enableSubchart serviceAccount rbacEnabled deployments",
    "dagster-user-deployments.deployments": "name image dagsterApiGrpcArgs port"
    " includeConfigInLaunchedRuns env volumes volumeMounts podSecurityContext securityContext"
    " resources",
}
"""The keys that the chart reads, by the path of their section."""


def merged(*values: Values) -> Values:
    """Merge values as Helm merges several files: maps key by key, everything else replaced."""
    made: dict[str, Any] = {}
    for layer in values:
        for key, value in layer.items():
            both = isinstance(value, Mapping) and isinstance(made.get(key), Mapping)
            made[key] = merged(made[key], value) if both else value
    return made


def instance_config(values: Values) -> Mapping[str, Any]:
    """Return the instance's dagster.yaml, as a document."""
    of_chart = _complete(values)
    daemon, concurrency = of_chart["dagsterDaemon"], of_chart["concurrency"]
    assert daemon["enabled"]
    coordinator = daemon["runCoordinator"]
    assert coordinator["enabled"]
    queue = _snake(coordinator["config"]["queuedRunCoordinator"])
    if not concurrency["enabled"]:
        # Dagster refuses this one beside a `concurrency` that comes from elsewhere.
        queue = {"max_concurrent_runs": -1, **queue}
    database = {"postgres_db": _postgresql(of_chart["postgresql"])}
    parts = {
        "scheduler": ("dagster.core.scheduler", "DagsterDaemonScheduler", None),
        "schedule_storage": (
            "dagster_postgres.schedule_storage",
            "PostgresScheduleStorage",
            database,
        ),
        "run_launcher": ("dagster_k8s", "K8sRunLauncher", launcher_config(values)),
        "run_storage": ("dagster_postgres.run_storage", "PostgresRunStorage", database),
        "event_log_storage": ("dagster_postgres.event_log", "PostgresEventLogStorage", database),
        "run_coordinator": ("dagster.core.run_coordinator", coordinator["type"], queue),
        "compute_logs": (
            "dagster.core.storage.noop_compute_log_manager",
            "NoOpComputeLogManager",
            None,
        ),
    }
    made: dict[str, Any] = {
        name: {"module": module, "class": kind, **({"config": config} if config else {})}
        for name, (module, kind, config) in parts.items()
    }
    for part in ("runMonitoring", "runRetries", "sensors", "schedules"):
        made |= _snake({part: _snake(daemon[part])})
    if concurrency["enabled"]:
        made["concurrency"] = {part: _snake(concurrency[part]) for part in ("pools", "runs")}
    return {
        **made,
        "telemetry": _snake(of_chart["telemetry"]),
        **of_chart["additionalInstanceConfig"],
    }


def launcher_config(values: Values) -> Mapping[str, Any]:
    """Return the configuration of K8sRunLauncher."""
    of_chart = _complete(values)
    assert of_chart["runLauncher"]["type"] == "K8sRunLauncher"
    given = _snake(of_chart["runLauncher"]["config"]["k8sRunLauncher"])
    return {
        **given,
        "run_k8s_config": _snake(given["run_k8s_config"]),
        "service_account_name": values["serviceAccount"]["name"],
        "dagster_home": of_chart["global"]["dagsterHome"],
        "instance_config_map": f"{RELEASE}-instance",
        "postgres_password_secret": of_chart["global"]["postgresqlSecretName"],
    }


def container_context(values: Values) -> Mapping[str, Any]:
    """Return what runs and steps get from the one code location."""
    users = _complete(values)["dagster-user-deployments"]
    assert users["enabled"]
    assert users["enableSubchart"]
    (deployment,) = users["deployments"]
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


def _complete(values: Values) -> Values:
    """Lay the values over the chart's own, and refuse a key that the chart does not read."""
    made = merged(DEFAULTS, values)
    for path, known in READS.items():
        section: Any = made
        for key in path.split(".") if path else ():
            section = section.get(key, {})
        for each in section if isinstance(section, list) else [section]:
            unknown = each.keys() - set(known.split())
            assert not unknown, f"The chart does not read {path}: {', '.join(sorted(unknown))}"
    return made


def _postgresql(given: Values) -> Mapping[str, Any]:
    return {
        "username": given["postgresqlUsername"],
        "password": {"env": "DAGSTER_PG_PASSWORD"},
        "hostname": given["postgresqlHost"] or f"{RELEASE}-postgresql",
        "db_name": given["postgresqlDatabase"],
        "port": given["service"]["port"],
        "params": given["postgresqlParams"],
        **({"scheme": given["postgresqlScheme"]} if given["postgresqlScheme"] else {}),
    }


def _snake(given: Values) -> dict[str, Any]:
    """Rename camelCase keys, as values have them, to snake_case, as Dagster reads them."""
    return {
        re.sub(r"(?<=[a-z0-9])([A-Z])", lambda m: "_" + m[1].lower(), key): value
        for key, value in given.items()
    }
