"""Which base model an adapter is trained on: the bytes of its folder, or the hub's commit."""

import hashlib
from pathlib import Path

from lora_assets.errors import LoraAssetsError

_WEIGHTS = ("*.safetensors", "*.bin")
_OTHERS = ("config.json", "tokenizer*", "special_tokens_map.json")


def base_identity(base_model: str) -> str:
    """Return the digest of a folder's weights, configuration and tokenizer, or the hub's commit.

    Raise LoraAssetsError for a folder that holds no model, and for a name that the hub does not
    have.
    """
    folder = Path(base_model)
    if folder.is_dir() or base_model.startswith(("/", ".")):
        return _digest(folder)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(base_model, "config.json")).parent.name
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise LoraAssetsError(
            f"Base model {base_model!r} is no folder, and the hub did not give it ({reason})",
            "Correct BASE_MODEL, or make it reachable.",
        ) from None


def _digest(folder: Path) -> str:
    weights = [file for pattern in _WEIGHTS for file in folder.glob(pattern)]
    if not weights or not (folder / "config.json").is_file():
        raise LoraAssetsError(
            f"Base model {folder} has no weights with a config.json",
            "Correct BASE_MODEL, or put the model's files there.",
        )
    total = hashlib.sha256()
    for file in sorted({*weights, *(f for pattern in _OTHERS for f in folder.glob(pattern))}):
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        total.update(f"{file.name}\0{digest}\0".encode())
    return total.hexdigest()
