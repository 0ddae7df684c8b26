"""No pauses before requests are repeated."""

import pytest

from lora_assets.serving import http_client


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "RETRY_PAUSES", (0.0, 0.0))
