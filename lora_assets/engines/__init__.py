"""Training, serving, judging and load generation: torch and HTTP, no Dagster."""
