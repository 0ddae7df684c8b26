"""What may happen without a person."""

from typing import Any

import dagster as dg


class Automation(dg.ConfigurableResource[Any]):
    """How far the sensor takes a data version.

    With `automatic_promotion` one that passed every gate goes live; else it waits for a person.
    """

    automatic_promotion: bool = False
