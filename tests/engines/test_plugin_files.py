"""What vLLM gets of this package, imported where nothing else is."""

import subprocess
import sys
from pathlib import Path

from lora_assets.engines.plugin_files import FILES, place_plugin

VLLM = {
    "vllm/__init__.py": "",
    "vllm/lora/__init__.py": "",
    "vllm/lora/request.py": "class LoRARequest: ...",
    "vllm/lora/resolver.py": """
class LoRAResolver: ...
class LoRAResolverRegistry:
    registered = []
    @classmethod
    def register_resolver(cls, name, resolver):
        cls.registered.append(name)
""",
}
"""What of vLLM's the plugin imports; `make test-vllm` runs it in real vLLM."""

IMPORT = """
import sys
sys.path[:0] = sys.argv[1:]
from lora_assets.engines.vllm_plugin import SlotMiddleware
from vllm.lora.resolver import LoRAResolverRegistry
print(SlotMiddleware.__name__, *LoRAResolverRegistry.registered)
"""


def test_the_plugin_needs_nothing_but_these_files_and_vllm(tmp_path: Path) -> None:
    plugin, vllm = tmp_path / "plugin", tmp_path / "vllm"
    place_plugin(plugin)
    for name, text in VLLM.items():
        (vllm / name).parent.mkdir(parents=True, exist_ok=True)
        (vllm / name).write_text(text)
    # Without this environment's packages.
    command = [sys.executable, "-I", "-S", "-c", IMPORT, str(plugin), str(vllm)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "SlotMiddleware lora-assets names\n", done.stderr


def test_an_older_release_of_the_plugin_is_replaced(tmp_path: Path) -> None:
    place_plugin(tmp_path)
    (tmp_path / "lora_assets" / "engines" / "slots.py").write_text("OLD")
    place_plugin(tmp_path)
    placed = sorted(
        path.relative_to(tmp_path / "lora_assets").as_posix()
        for path in tmp_path.rglob("*")
        if path.is_file()
    )
    assert placed == sorted(FILES)
    package = Path(sys.modules["lora_assets"].__path__[0])
    for file in FILES:
        assert (tmp_path / "lora_assets" / file).read_bytes() == (package / file).read_bytes()
