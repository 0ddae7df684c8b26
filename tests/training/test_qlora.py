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


def test_a_machine_without_a_gpu_trains_on_its_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 0, bf16=False)
    assert device() == torch.device("cpu")


def test_a_process_uses_its_own_gpu_if_it_computes_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 2, bf16=True)
    assert device() == torch.device("cuda", 1)


def test_a_gpu_without_bf16_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(monkeypatch, 1, bf16=False)
    with pytest.raises(LoraAssetsError, match="Tesla T4 does not compute in bf16"):
        device()
