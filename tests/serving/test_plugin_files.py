"""What vLLM gets of this package, imported where nothing else is."""

import subprocess
import sys
from pathlib import Path

import pytest

from lora_assets.serving.plugin_files import FILES, MIDDLEWARE, OLD_PATH, PLUGIN, place_plugin

pytestmark = pytest.mark.integration

PACKAGE = Path(sys.modules["lora_assets"].__path__[0])

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
import importlib, sys
module, _, name = sys.argv[1].rpartition(".")
sys.path[:0] = sys.argv[2:]
found = getattr(importlib.import_module(module), name)
from vllm.lora.resolver import LoRAResolverRegistry
print(found.__name__, *LoRAResolverRegistry.registered)
"""

OLD_MIDDLEWARE = "lora_assets.engines.vllm_plugin.SlotMiddleware"


def imported(middleware: str, *path: Path) -> subprocess.CompletedProcess[str]:
    """Import it as vLLM does, without this environment's packages."""
    command = [sys.executable, "-I", "-S", "-c", IMPORT, middleware, *map(str, path)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    place_plugin(tmp_path / "plugin")
    return tmp_path / "plugin"


@pytest.fixture
def vllm(tmp_path: Path) -> Path:
    for name, text in VLLM.items():
        (tmp_path / "vllm" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "vllm" / name).write_text(text)
    return tmp_path / "vllm"


def test_the_plugin_needs_nothing_but_these_files_and_vllm(plugin: Path, vllm: Path) -> None:
    done = imported(MIDDLEWARE, plugin, vllm)
    assert done.stdout == "SlotMiddleware lora-assets names\n", done.stderr


def test_the_old_path_works_for_one_release_and_says_so(plugin: Path, vllm: Path) -> None:
    done = imported(OLD_MIDDLEWARE, plugin, vllm)
    assert done.stdout == "SlotMiddleware lora-assets names\n", done.stderr
    assert f"SlotMiddleware is now {MIDDLEWARE}; change vLLM's --middleware" in done.stderr


def test_the_plugin_hides_no_whole_package_behind_it(plugin: Path, vllm: Path) -> None:
    whole = PACKAGE.parent
    done = imported("lora_assets.serving.vllm_plugin.slots.SlotMiddleware", plugin, vllm, whole)
    assert done.stdout == "SlotMiddleware\n", done.stderr
    done = imported(OLD_MIDDLEWARE, plugin, vllm, whole)
    assert done.stdout == "SlotMiddleware lora-assets names\n", done.stderr


def test_an_older_release_of_the_plugin_is_replaced(plugin: Path) -> None:
    (plugin / PLUGIN / "slots.py").write_text("OLD")
    place_plugin(plugin)
    placed = {path.relative_to(plugin).as_posix() for path in plugin.rglob("*") if path.is_file()}
    assert placed == {*(f"{PLUGIN}/{file}" for file in FILES), OLD_PATH}
    source = PACKAGE / "serving" / "vllm_plugin"
    assert all((plugin / PLUGIN / f).read_bytes() == (source / f).read_bytes() for f in FILES)
