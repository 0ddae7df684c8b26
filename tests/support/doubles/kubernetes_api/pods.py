"""A pod that was there before: a local folder, and the state that the test gives it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.doubles.kubernetes_api.replies import pod_json


@dataclass
class Pod:
    """A pod; `folder` stands for the root of its file system."""

    name: str
    folder: Path
    labels: Mapping[str, str] = field(default_factory=lambda: {"app": "vllm"})
    namespace: str = "models"
    ip: str | None = "10.0.0.1"
    ready: bool | None = True
    deleted: bool = False
    phase: str = "Running"
    containers: Sequence[str] = ("vllm",)
    programs: Sequence[str] = ("python3",)
    node: str | None = None

    def json(self) -> Mapping[str, object]:
        ready = {None: "Unknown", True: "True", False: "False"}[self.ready]
        status = {"phase": self.phase, "conditions": [{"type": "Ready", "status": ready}]}
        spec: dict[str, object] = {"containers": [{"name": name} for name in self.containers]}
        if self.node:
            spec["nodeName"] = self.node
        return pod_json(self, spec, {**status, **({"podIP": self.ip} if self.ip else {})})
