"""The few files of this package that vLLM loads, put where its PYTHONPATH finds them."""

from pathlib import Path

FILES = (
    "__init__.py",
    *("engines/__init__.py", "engines/adapters_folder.py"),
    *("engines/slots.py", "engines/vllm_plugin.py"),
)
"""They import the standard library and vLLM; nothing else has to be in vLLM's image."""

_PACKAGE = Path(__file__).parents[1]


def place_plugin(folder: Path) -> None:
    """Put the package `lora_assets` in `folder`, of these files alone."""
    for file in FILES:
        to = folder / _PACKAGE.name / file
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes((_PACKAGE / file).read_bytes())
