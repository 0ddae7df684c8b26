"""Which steps need no pod of their own: those that the run's pod has room for.

A pod costs seconds of waiting and one more Python process that loads the graph. A gate that reads
two records is done sooner than its pod has started.
"""

from collections.abc import Iterable, Mapping
from typing import Any

Config = Mapping[str, Any]
"""Fields by section, as dagster-k8s takes them in op tags: `container_config` and its like."""


def fit_into_run(steps: Iterable[Config], run: Config) -> bool:
    """Return whether the run's pod can be the pod of each step, and there is a step.

    A step that asks for more than resources (an image, a volume, a node, a variable) has a pod of
    its own. So has each step of a run whose own requests or limits aren't stated.
    """
    wanted = [_resources_alone(step) for step in steps]
    offered = run.get("container_config", {}).get("resources", {})
    return bool(wanted) and all(each is not None and _within(each, offered) for each in wanted)


def _resources_alone(step: Config) -> Config | None:
    container = step.get("container_config", {})
    alone = step.keys() == {"container_config"} and container.keys() == {"resources"}
    return container["resources"] if alone else None


def _within(wanted: Config, offered: Config) -> bool:
    from kubernetes.utils import parse_quantity

    return all(
        resource in offered.get(kind, {})
        and parse_quantity(amount) <= parse_quantity(offered[kind][resource])
        for kind in ("requests", "limits")
        for resource, amount in wanted.get(kind, {}).items()
    )
