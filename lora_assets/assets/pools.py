"""What must not overlap: Dagster pools, each of one slot (see dagster.yaml)."""

TRAINING = "training"
"""One training run per GPU."""

SERVING = "serving"
"""Aliases are last-writer-wins, the fleet has one candidate slot, and a load test needs the fleet
for itself: whatever touches one of them waits for the other."""
