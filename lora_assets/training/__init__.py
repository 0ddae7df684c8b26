"""QLoRA training: rows in, one safetensors adapter and its measurements out."""

import logging
from importlib.util import find_spec

from lora_assets.errors import LoraAssetsError

# On a CPU with AVX-512 bitsandbytes looks for a kernel to download when peft imports it, and
# warns that it found none. It isn't wanted: nothing is downloaded but what was asked for.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


def has_torch() -> bool:
    """Return whether the package was installed with what trains, and reads a base's tokenizer."""
    return find_spec("torch") is not None


def require_torch() -> None:
    """Refuse, in one line, to go on where the package was installed without what trains."""
    if not has_torch():
        raise LoraAssetsError(
            "torch is not installed here",
            "Use the image vllm-training-tools, or install lora-assets[embedded].",
        )
