"""Runs on a Dagster elsewhere."""
