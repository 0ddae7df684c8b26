"""What vLLM loads: `--middleware lora_assets_vllm.middleware.SlotMiddleware`.

vLLM imports this before it collects its LoRA resolvers. With the one registered here an
adapter's own name answers also after a restart, before anything has loaded it again.
"""

import asyncio
import os

from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver, LoRAResolverRegistry

from . import slots
from .guard import ADMIN_KEY, App, Guard
from .slots import adapters_dir, named_folder

__all__ = ["SlotMiddleware"]


class SlotMiddleware(Guard):
    """Asks for the keys that vLLM was started with, then serves the slots."""

    def __init__(self, app: App) -> None:
        has_admin = bool(os.environ.get(ADMIN_KEY))
        super().__init__(slots.SlotMiddleware(app, loads_own_alone=has_admin))


class NameResolver(LoRAResolver):  # type: ignore[misc]
    """Finds an adapter by its own name among the links in `names/`."""

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
        """The adapter under its digest folder's path, which vLLM's prefix cache is keyed by."""
        folder = await asyncio.to_thread(named_folder, adapters_dir(), lora_name)
        # vLLM replaces the id; it only has to be a possible one.
        return folder and LoRARequest(lora_name=lora_name, lora_int_id=1, lora_path=str(folder))


LoRAResolverRegistry.register_resolver("lora-assets names", NameResolver())
