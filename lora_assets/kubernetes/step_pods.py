"""What each step needs of Kubernetes, as op tags.

The tags lie on assets and checks, because from there alone they reach a step's pod. The image
is the code location's (`vllm-deployment-tools`), except for the training step.
"""

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml

OpTags = Mapping[str, Any]

_PODS: Mapping[str, OpTags] = yaml.safe_load(
    files(__package__).joinpath("step_pods.yaml").read_bytes()
)


def step_pod(step: str) -> OpTags:
    """Return the op tags of a pod for a step of the specification."""
    return {"dagster-k8s/config": _PODS[step]}
