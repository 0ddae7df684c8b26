"""Whether this installation can train and serve: not every image has torch."""

from importlib.util import find_spec

from lora_assets.errors import LoraAssetsError


def require_torch() -> None:
    """Refuse, in one line, to go on where the package was installed without what trains."""
    if find_spec("torch") is None:
        raise LoraAssetsError(
            "torch is not installed here",
            "Use the image vllm-training-tools, or install lora-assets[embedded].",
        )
