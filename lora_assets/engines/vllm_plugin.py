"""The old path of vLLM's middleware; use `lora_assets_vllm.middleware`. Gone in release 0.3."""

import warnings

try:
    from lora_assets.serving.vllm_plugin.middleware import SlotMiddleware
except ModuleNotFoundError:
    # In vLLM's plug-in folder, where there is no whole lora_assets.
    from lora_assets_vllm.middleware import SlotMiddleware  # type: ignore[import-not-found,no-redef]

__all__ = ["SlotMiddleware"]

warnings.warn(
    "lora_assets.engines.vllm_plugin.SlotMiddleware is now "
    "lora_assets_vllm.middleware.SlotMiddleware; change vLLM's --middleware.",
    FutureWarning,
    stacklevel=2,
)
