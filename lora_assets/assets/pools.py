"""What must not overlap: Dagster pools, each of one slot (see dagster.yaml)."""

TRAINING = "training"
"""One training run per GPU."""

SERVING = "serving"
"""Aliases are last-writer-wins, the fleet has one candidate place, and a load test tolerates no
neighbour: whatever touches one of them waits for the other."""
