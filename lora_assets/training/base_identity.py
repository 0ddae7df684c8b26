"""Which base model an adapter is trained on: the bytes of its folder, or the hub's commit."""

from pathlib import Path

from lora_assets.errors import LoraAssetsError
from lora_assets.serving.vllm_plugin.base_files import digest_base


def base_identity(base_model: str) -> str:
    """Return the digest of a folder's weights, configuration and tokenizer, or the hub's commit.

    Raise LoraAssetsError for a folder that holds no model, and for a name that the hub does not
    have.
    """
    folder = Path(base_model)
    if folder.is_dir() or base_model.startswith(("/", ".")):
        if (digest := digest_base(folder)) is None:
            raise LoraAssetsError(
                f"Base model {folder} has no weights with a config.json",
                "Correct BASE_MODEL, or put the model's files there.",
            )
        return digest
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
