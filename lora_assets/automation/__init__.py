"""What runs next: pure decisions over Dagster's history."""
