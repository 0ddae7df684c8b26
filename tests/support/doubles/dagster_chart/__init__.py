"""A double of Dagster's Helm chart (1.13): what it makes of our values.

Written after the chart's templates, because the chart is on no package index. A key that these
don't read is refused, so that no value of ours is lost in them. A test compares the objects with
what Helm rendered from the real chart.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

Values = Mapping[str, Any]

NAMESPACE = "dagster"
CHART_VERSION = "1.13.27"
FOLDER = Path(__file__).parent


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
    return {**_rendered("instance", values), **values.get("additionalInstanceConfig", {})}


def objects(values: Values, version: str = CHART_VERSION) -> Sequence[Values]:
    """Return every Secret, ConfigMap, Service and workload of the release."""
    return list(_rendered("objects", values, version=version))


def _rendered(template: str, values: Values, **facts: object) -> Any:
    """Render a template with the values laid over the chart's own."""
    complete = merged(yaml.safe_load((FOLDER / "values.yaml").read_text()), values)
    _refuse_unread("values", complete, yaml.safe_load((FOLDER / "keys.yaml").read_text()))
    users = complete["dagster-user-deployments"]
    facts |= {"users": users, "deployment": users["deployments"][0]}
    engine = Environment(loader=FileSystemLoader(FOLDER), undefined=StrictUndefined)
    engine.filters["snake"] = _snake
    return yaml.safe_load(engine.get_template(f"{template}.yaml.j2").render(complete, **facts))


def _refuse_unread(path: str, given: Any, read: Any) -> None:
    if isinstance(read, Mapping):
        unread = given.keys() - read.keys()
        assert not unread, f"The chart does not read in {path}: {', '.join(sorted(unread))}"
        for key, below in read.items():
            _refuse_unread(f"{path}.{key}", given.get(key, {}), below)
    elif isinstance(read, list):
        for each in given:
            _refuse_unread(path, each, read[0])
    elif read is not None:
        assert given == read, f"The double of the chart only knows {path}: {read}"


def _snake(given: Values) -> Values:
    """Rename camelCase keys, as values have them, to snake_case, as Dagster reads them."""
    return {
        re.sub(r"(?<=[a-z0-9])([A-Z])", lambda m: "_" + m[1].lower(), key): value
        for key, value in given.items()
    }
