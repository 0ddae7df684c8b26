"""Tokens per second of QLoRA training: this engine, the specification's settings, TRL, Unsloth."""
