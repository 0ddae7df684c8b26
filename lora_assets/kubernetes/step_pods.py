"""What each step needs of Kubernetes: the specification's resource tables, as op tags.

The tags lie on assets and checks, because from there alone they reach a step's pod. The image
is the code location's (`vllm-deployment-tools`), except for the training step.
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
"""Checkpoints, and answers and grades. One pod at a time uses a claim, because each is used in one
pool alone, so that ReadWriteOnce volumes will do."""

_GPU = "nvidia.com/gpu"
_HOME_VARIABLE = {"name": "LORA_ASSETS_HOME", "value": HOME}
_HOME_MOUNT = {"name": "home", "mount_path": HOME}
_FILES_OF_IMAGE_USER = {"fs_group": 1000}


def _config(
    cpu: tuple[str, str],
    memory: tuple[str, str],
    container: Mapping[str, Any] | None = None,
    pod: Mapping[str, Any] | None = None,
    gpus: Mapping[str, str] | None = None,
) -> OpTags:
    """Return op tags for a pod that requests the first of each pair, limited to the second."""
    requests, limits = ({"cpu": c, "memory": m} for c, m in zip(cpu, memory, strict=True))
    resources = {"requests": requests | dict(gpus or {}), "limits": limits | dict(gpus or {})}
    return {
        "dagster-k8s/config": {
            "container_config": {"resources": resources, **(container or {})},
            **({"pod_spec_config": pod} if pod else {}),
        }
    }


def _home_volume(claim: str) -> Mapping[str, Any]:
    return {"name": "home", "persistent_volume_claim": {"claim_name": claim}}


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
        "volume_mounts": [{"name": "shm", "mount_path": "/dev/shm"}, _HOME_MOUNT],
    },
    pod={
        "node_selector": {"workload": "gpu-training"},
        "tolerations": [{"key": _GPU, "operator": "Exists", "effect": "NoSchedule"}],
        "security_context": _FILES_OF_IMAGE_USER,
        "volumes": [
            {"name": "shm", "empty_dir": {"medium": "Memory"}},
            _home_volume(TRAINING_CLAIM),
        ],
    },
)

JUDGE_ANSWERS = _config(
    ("500m", "1000m"),
    ("512Mi", "1Gi"),
    container={"env": [_HOME_VARIABLE], "volume_mounts": [_HOME_MOUNT]},
    pod={"security_context": _FILES_OF_IMAGE_USER, "volumes": [_home_volume(EVALUATION_CLAIM)]},
)
"""inference-candidate, inference-live and judge-answers, which are one asset here."""

RUN_LOAD_TEST = _config(("500m", "1000m"), ("512Mi", "1Gi"))

QUALITY_GATE = LOAD_ADAPTER = _config(("250m", "500m"), ("512Mi", "1Gi"))

DOWNLOAD_DATA = SMOKE_TEST = COMPARE_DECISION = PERF_DECISION = PROMOTE_ADAPTER = _config(
    ("250m", "500m"), ("256Mi", "512Mi")
)
