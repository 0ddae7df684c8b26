"""A double of Dagster's Helm chart: the dagster.yaml that it makes of the values that we set.

Written from the chart's documentation (1.13), because the chart is on no package index. It
refuses what it doesn't know, so that a value of ours can't be lost in it.
"""

import re
from collections.abc import Mapping
from typing import Any

Values = Mapping[str, Any]
_POSTGRESQL = {
    "postgresqlHost": "dagster-postgresql",
    "postgresqlUsername": "test",
    "postgresqlDatabase": "test",
    "postgresqlParams": {},
    "service": {"port": 5432},
}
_CLASSES = {
    "K8sRunLauncher": "dagster_k8s",
    "QueuedRunCoordinator": "dagster._core.run_coordinator",
}


def snake(name: str) -> str:
    """camelCase, as values are written, as snake_case, as Dagster reads it."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda m: "_" + m[1].lower(), name)


def instance_config(values: Values) -> Mapping[str, Any]:
    """The instance's dagster.yaml, as a document."""
    database = {**_POSTGRESQL, **values["postgresql"]}
    daemon = values["dagsterDaemon"]
    launcher, coordinator = values["runLauncher"], daemon["runCoordinator"]
    assert daemon["enabled"]
    assert coordinator.keys() == {"enabled", "type"}
    return {
        "scheduler": {"module": "dagster._core.scheduler", "class": "DagsterDaemonScheduler"},
        "storage": {
            "postgres": {
                "postgres_db": {
                    "username": database["postgresqlUsername"],
                    "password": {"env": "DAGSTER_PG_PASSWORD"},
                    "hostname": database["postgresqlHost"],
                    "db_name": database["postgresqlDatabase"],
                    "port": database["service"]["port"],
                    "params": database["postgresqlParams"],
                    "scheme": "postgresql",
                }
            }
        },
        "run_launcher": {
            "module": _CLASSES[launcher["type"]],
            "class": launcher["type"],
            "config": launcher_config(values),
        },
        "run_coordinator": {
            "module": _CLASSES[coordinator["type"]],
            "class": coordinator["type"],
            "config": {},
        },
        "compute_logs": {
            "module": "dagster._core.storage.noop_compute_log_manager",
            "class": "NoOpComputeLogManager",
        },
        "run_monitoring": {snake(key): value for key, value in daemon["runMonitoring"].items()},
        "run_retries": {snake(key): value for key, value in daemon["runRetries"].items()},
        "telemetry": values["telemetry"],
        **values["additionalInstanceConfig"],
    }


def launcher_config(values: Values) -> Mapping[str, Any]:
    """What K8sRunLauncher is told."""
    (config,) = values["runLauncher"]["config"].values()
    told = {snake(key): value for key, value in config.items()}
    if "run_k8s_config" in told:
        told["run_k8s_config"] = {snake(k): v for k, v in told["run_k8s_config"].items()}
    return {
        "load_incluster_config": True,
        "dagster_home": "/opt/dagster/dagster_home",
        "instance_config_map": "dagster-instance",
        "postgres_password_secret": "dagster-postgresql-secret",
        "service_account_name": values["serviceAccount"]["name"],
        **told,
    }


def container_context(values: Values) -> Mapping[str, Any]:
    """What runs and steps of the one code location get from it."""
    users = values["dagster-user-deployments"]
    (deployment,) = users["deployments"]
    assert users["enabled"]
    assert users["enableSubchart"]
    assert deployment["includeConfigInLaunchedRuns"] == {"enabled": True}
    image = deployment["image"]
    return {
        "k8s": {
            "image_pull_policy": image["pullPolicy"],
            "env": deployment["env"],
            "volumes": deployment["volumes"],
            "volume_mounts": deployment["volumeMounts"],
            "security_context": deployment["securityContext"],
            "resources": deployment["resources"],
            "namespace": "dagster",
            "service_account_name": users["serviceAccount"]["name"],
        }
    }
