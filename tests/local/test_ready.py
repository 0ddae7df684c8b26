import httpx
import pytest

from lora_assets.local import ready


def test_ready_is_said_once_every_server_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def reply(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        if len(asked) == 1:
            raise httpx.ConnectError("refused")
        return httpx.Response(503 if len(asked) == 2 else 200)

    monkeypatch.setattr(ready, "SECONDS_BETWEEN_LOOKS", 0.0)
    with httpx.Client(transport=httpx.MockTransport(reply)) as client:
        said = ready.await_ready(["http://a:1/health", "http://b:2/health"], client)
    assert said == "Ready: http://a:1  http://b:2"
    assert asked == ["a", "a", "a", "b"]
