"""Which machine a training runs on."""

import pytest
import torch

from lora_assets.errors import LoraAssetsError
from lora_assets.training.qlora import device


def gpus(monkeypatch: pytest.MonkeyPatch, count: int, bf16: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: count - 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)


@pytest.mark.parametrize(("count", "name"), [(0, "cpu"), (2, "cuda:1")])
def test_a_process_trains_on_its_gpu_or_without_one_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, count: int, name: str
) -> None:
    gpus(monkeypatch, count, bf16=count > 0)
    assert device() == torch.device(name)


def test_a_gpu_without_bf16_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 1, bf16=False)
    with pytest.raises(LoraAssetsError, match="Tesla T4 does not compute in bf16"):
        device()
