"""Who answers for the graph, as Dagster shows it on every asset."""

OWNERS = ["team:ml-platform"]
