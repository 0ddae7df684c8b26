"""Only the old path of vLLM's middleware, until release 0.3."""
