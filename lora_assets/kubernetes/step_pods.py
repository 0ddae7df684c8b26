"""What each step needs of Kubernetes: the specification's resource tables, as op tags.

The tags lie on assets and checks, because from there alone they reach a step's pod. The image
is the code location's (`vllm-deployment-tools`), but for the training step.
"""

from collections.abc import Mapping
from typing import Any

OpTags = Mapping[str, Any]

TRAINING_IMAGE = "vllm-training-tools"
"""Without a registry: a deployment names its own (docs/kubernetes.md)."""

HOME = "/var/lib/lora-assets"
"""Where a step keeps what must outlive its pod; LORA_ASSETS_HOME of the steps with a claim."""

TRAINING_CLAIM = "lora-assets-training"
EVALUATION_CLAIM = "lora-assets-evaluation"
"""Checkpoints, and answers and grades. A claim has one pod at a time, since each is used in one
pool alone, so that ReadWriteOnce volumes will do."""

_GPU = "nvidia.com/gpu"
_GROUP = 1000
"""Of the images' user: a claim's files belong to it."""


def _config(
    cpu: tuple[str, str],
    memory: tuple[str, str],
    container: Mapping[str, Any] | None = None,
    pod: Mapping[str, Any] | None = None,
    gpus: Mapping[str, str] | None = None,
) -> OpTags:
    """Op tags for a pod that requests the first of each pair and is limited to the second."""
    requests, limits = ({"cpu": c, "memory": m} for c, m in zip(cpu, memory, strict=True))
    resources = {"requests": requests | dict(gpus or {}), "limits": limits | dict(gpus or {})}
    return {
        "dagster-k8s/config": {
            "container_config": {"resources": resources, **(container or {})},
            **({"pod_spec_config": pod} if pod else {}),
        }
    }


def _claim(name: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The volume of a claim, and its place in the container."""
    return (
        {"name": "home", "persistent_volume_claim": {"claim_name": name}},
        {"name": "home", "mount_path": HOME},
    )


_HOME_VARIABLE = {"name": "LORA_ASSETS_HOME", "value": HOME}
_training_volume, _training_mount = _claim(TRAINING_CLAIM)
_evaluation_volume, _evaluation_mount = _claim(EVALUATION_CLAIM)
_SMALL = ("256Mi", "512Mi")
_LARGE = ("512Mi", "1Gi")

DOWNLOAD_DATA = _config(("250m", "500m"), _SMALL)

TRAIN = _config(
    ("3", "4"),
    ("12Gi", "14Gi"),
    gpus={_GPU: "1"},
    container={
        "image": TRAINING_IMAGE,
        "env": [
            _HOME_VARIABLE,
            {
                "name": "HF_TOKEN",
                "value_from": {"secret_key_ref": {"name": "hf-token", "key": "token"}},
            },
        ],
        "volume_mounts": [{"name": "shm", "mount_path": "/dev/shm"}, _training_mount],
    },
    pod={
        "node_selector": {"workload": "gpu-training"},
        "tolerations": [{"key": _GPU, "operator": "Exists", "effect": "NoSchedule"}],
        "security_context": {"fs_group": _GROUP},
        "volumes": [{"name": "shm", "empty_dir": {"medium": "Memory"}}, _training_volume],
    },
)

QUALITY_GATE = _config(("250m", "500m"), _LARGE)

LOAD_ADAPTER = _config(("250m", "500m"), _LARGE)

SMOKE_TEST = _config(("250m", "500m"), _SMALL)

JUDGE_ANSWERS = _config(
    ("500m", "1000m"),
    _LARGE,
    container={"env": [_HOME_VARIABLE], "volume_mounts": [_evaluation_mount]},
    pod={"security_context": {"fs_group": _GROUP}, "volumes": [_evaluation_volume]},
)
"""inference-candidate, inference-live and judge-answers, which are one asset here."""

COMPARE_DECISION = _config(("250m", "500m"), _SMALL)

RUN_LOAD_TEST = _config(("500m", "1000m"), _LARGE)

PERF_DECISION = _config(("250m", "500m"), _SMALL)

PROMOTE_ADAPTER = _config(("250m", "500m"), _SMALL)
