"""Every route of the server in use, asked without a key."""

from pathlib import Path

import httpx
import pytest

from lora_assets.serving.vllm_plugin.guard import OPEN
from tests.support.replicas import running

pytestmark = pytest.mark.integration

METHODS = {"get", "put", "post", "delete", "patch"}


def test_no_route_of_the_server_answers_without_a_key(tmp_path: Path) -> None:
    (tmp_path / "adapters").mkdir()
    with running(tmp_path / "adapters", api_key="client-key", admin_key="admin-key") as server:
        server.await_ready()
        with httpx.Client(base_url=server.url, timeout=60) as client:
            admin = {"Authorization": "Bearer admin-key"}
            paths = client.get("/openapi.json", headers=admin).raise_for_status().json()["paths"]
            routes = [(m.upper(), p) for p, each in paths.items() for m in each if m in METHODS]
            keyless = {r for r in routes if client.request(*r).status_code != 401}
            assert ("POST", "/v1/load_lora_adapter") in routes
            assert keyless <= {("GET", path) for path in OPEN}
            load = {"lora_name": "x", "lora_path": "attacker/hf-repo"}
            for path in ("/v1/load_lora_adapter", "/adapters"):
                refused = client.post(path, json=load, headers=admin)
                assert (path, refused.status_code) == (path, 403)
            key = {"Authorization": "Bearer client-key"}
            told = client.post("/v1/load_lora_adapter", json=load, headers=key)
            listed = client.get("/v1/models", headers=key)
            assert (told.status_code, listed.status_code) == (403, 200)
