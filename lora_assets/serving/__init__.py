"""How an adapter's bytes become answers: no Dagster."""
