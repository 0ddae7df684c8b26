"""The first thing of a step: a run's configuration that reaches for secrets is refused."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from lora_assets.errors import LoraAssetsError
from lora_assets.resources.record_io import RecordIOManager
from lora_assets.serving.key_origin import KEYS, origin
from lora_assets.settings import SETTINGS, fields_given, read_settings

_OWN_VARIABLES: Mapping[str, str] = {
    place: each.variable for each in SETTINGS.values() if each.secret for place in each.gives
}
"""The variable of each secret of a resource, by "<resource>.<field>"."""


class GuardedRecords(RecordIOManager):
    """Keeps the records of runs whose configuration asks for nothing that is not theirs."""

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Refuse a run that reads variables of its pod, or sends a key to another server.

        Every step begins here, and Dagster has put their values into the configuration by then.
        """
        run_config = context.run.run_config if context.run else {}
        if named := _variable(run_config):
            raise LoraAssetsError(
                f"The run's configuration reads the environment variable {named} of its pod",
                f"Give the value itself in place of {{env: {named}}}.",
            )
        if key := _sent_elsewhere(run_config):
            raise LoraAssetsError(
                f"The run's configuration names another server than the one that {key} is for",
                "Give that server's own key in its place, or none.",
            )


def _variable(config: object, at: tuple[str, ...] = ()) -> str | None:
    """Return the first variable that a run's configuration names; None where it names none.

    A resource's secret may stay the variable that it is anyway: who changes another field of the
    resource has to give all of them.
    """
    if isinstance(config, Mapping):
        if set(config) == {"env"} and isinstance(config["env"], str):
            place = ".".join(at[1::2]) if at[:1] == ("resources",) else ""
            return None if _OWN_VARIABLES.get(place) == config["env"] else config["env"]
        below = [_variable(value, (*at, str(name))) for name, value in config.items()]
    elif isinstance(config, list):
        below = [_variable(value, (*at, "")) for value in config]
    else:
        return None
    return next(filter(None, below), None)


def _sent_elsewhere(run_config: Mapping[str, Any]) -> str | None:
    """Return the first variable whose key would go to an origin that is not configured."""
    configured = fields_given(read_settings())
    for option, keys in KEYS.items():
        resource, _, field = SETTINGS[option].gives[0].partition(".")
        given = run_config.get("resources", {}).get(resource, {}).get("config", {})
        asked, own = (
            {origin(url) for url in (fields.get(field), *fields.get("replica_urls", ())) if url}
            for fields in (given, configured[resource])
        )
        if asked <= own:
            continue
        for place in (place for key in keys for place in SETTINGS[key].gives):
            if given.get(place.partition(".")[2]) == {"env": _OWN_VARIABLES.get(place)}:
                return _OWN_VARIABLES[place]
    return None
