"""Which base model an adapter is trained on: the bytes of its folder, or the hub's commit."""

from pathlib import Path

from lora_assets.errors import LoraAssetsError
from lora_assets.serving.vllm_plugin.base_files import digest_base


def is_folder(base_model: Path | str) -> bool:
    """Return whether that is a folder, there or not, and no name on the hub."""
    return Path(base_model).is_dir() or str(base_model).startswith(("/", "."))


def name_and_revision(base_model: Path | str) -> tuple[str, str]:
    """Return a folder, or of the hub's `name@revision` its parts, as transformers takes them."""
    name, at, revision = str(base_model).partition("@")
    return (name, revision) if at and not is_folder(base_model) else (str(base_model), "main")


def base_identity(base_model: str) -> str:
    """Return the digest of a folder's weights, configuration and tokenizer, or the hub's commit.

    Raise LoraAssetsError for a folder that holds no model, and for a name that the hub does not
    have.
    """
    if is_folder(base_model):
        if (digest := digest_base(Path(base_model))) is None:
            raise LoraAssetsError(
                f"Base model {base_model} has no weights with a config.json",
                "Correct BASE_MODEL, or put the model's files there.",
            )
        return digest
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    name, revision = name_and_revision(base_model)
    try:
        return Path(hf_hub_download(name, "config.json", revision=revision)).parent.name
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise LoraAssetsError(
            f"Base model {base_model!r} is no folder, and the hub did not give it ({reason})",
            "Correct BASE_MODEL, or make it reachable.",
        ) from None
