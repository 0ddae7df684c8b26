"""One Dagster asset graph that takes a LoRA adapter from its training data to live traffic."""
