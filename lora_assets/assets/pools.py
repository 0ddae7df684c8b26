"""What must not overlap: Dagster pools, each of one slot (see dagster.yaml)."""

TRAINING = "training"
"""One training run per GPU."""

SERVING = "serving"
"""Aliases are last-writer-wins, the fleet has one candidate slot, and a load test needs the fleet
for itself: whatever touches one of them waits for the other."""

ROLLBACK = "rollback"
"""A rollback waits for other rollbacks alone: neither for an evaluation of hours nor for a
promotion, which stops before its next step when it sees the rollback."""

POOLS = (TRAINING, SERVING, ROLLBACK)
