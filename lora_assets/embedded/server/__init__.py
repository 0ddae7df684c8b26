"""The embedded model server: vLLM's API for one small base model and its LoRA adapters."""
