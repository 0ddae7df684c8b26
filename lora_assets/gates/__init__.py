"""The gates: pure decisions over records, each with its thresholds beside it."""
