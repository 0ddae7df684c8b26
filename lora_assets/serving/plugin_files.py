"""The few files of this package that vLLM loads, put where its PYTHONPATH finds them."""

from pathlib import Path

PLUGIN = "lora_assets_vllm"
"""The plug-in's own package name: a folder named `lora_assets` would hide the whole package."""

MIDDLEWARE = f"{PLUGIN}.middleware.SlotMiddleware"
"""What vLLM's --middleware names."""

FILES = (
    *("__init__.py", "adapters_folder.py", "base_files.py", "guard.py", "middleware.py"),
    "slots.py",
)
"""They import the standard library and vLLM; nothing else has to be in vLLM's image."""

OLD_PATH = "lora_assets/engines/vllm_plugin.py"
"""The middleware's path before 0.2, kept for one release. It lies in a folder without an
`__init__.py`, so that a whole `lora_assets` elsewhere on the path goes before it."""

_PACKAGE = Path(__file__).parents[1]


def place_plugin(folder: Path) -> None:
    """Put the package `lora_assets_vllm` in `folder`."""
    sources = {f"{PLUGIN}/{file}": _PACKAGE / "serving" / "vllm_plugin" / file for file in FILES}
    for file, source in {**sources, OLD_PATH: _PACKAGE.parent / OLD_PATH}.items():
        to = folder / file
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(source.read_bytes())
