"""Small adapters with something to say, and one engine for all tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from peft import LoraConfig

from lora_assets.embedded.server.batching import Engine
from lora_assets.embedded.server.options import ServerOptions
from lora_assets.embedded.server.process import start_engine
from tests.support.random_adapters import ATTENTION, save_adapter

SHAPES = {
    "one": LoraConfig(r=8, lora_alpha=16, target_modules=ATTENTION),
    "two": LoraConfig(r=16, lora_alpha=32, target_modules=[*ATTENTION, "up_proj", "down_proj"]),
    "three": LoraConfig(
        r=4,
        lora_alpha=8,
        use_rslora=True,
        target_modules=["q_proj", "v_proj"],
        layers_to_transform=[1, 2],
    ),
    "wide": LoraConfig(r=64, lora_alpha=64, target_modules=["q_proj"]),
}


@pytest.fixture(scope="session")
def adapters_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    for seed, (name, config) in enumerate(SHAPES.items()):
        save_adapter(folder / name, config, seed)
    return folder


@pytest.fixture(scope="session")
def options(adapters_dir: Path) -> ServerOptions:
    return ServerOptions(adapters_dir=adapters_dir, max_lora_rank=32, max_num_seqs=6)


@pytest.fixture(scope="session")
def engine(options: ServerOptions) -> Iterator[Engine]:
    engine = start_engine(options)
    yield engine
    engine.close()
