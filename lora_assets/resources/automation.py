"""What may happen without a person."""

from typing import Any

import dagster as dg


class Automation(dg.ConfigurableResource[Any]):
    """How far the sensor takes a data version, and how it measures.

    With `automatic_promotion` a version that passed every gate goes live; else it waits for a
    person. `measure_baseline` load-tests live beside each candidate, for machines whose other
    work makes a stored baseline worthless.
    """

    automatic_promotion: bool = False
    measure_baseline: bool = False
