"""Says when servers are ready, for `make ui`: `python -m lora_assets.local.ready URL...`."""

import sys
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import httpx

SECONDS_BETWEEN_LOOKS = 0.5


def await_ready(urls: Sequence[str], client: httpx.Client) -> str:
    """Return one line with the addresses of all servers, once each has answered well."""
    for url in urls:
        while not _answers(url, client):
            time.sleep(SECONDS_BETWEEN_LOOKS)
    return f"Ready: {'  '.join(f'http://{urlsplit(url).netloc}' for url in urls)}"


def _answers(url: str, client: httpx.Client) -> bool:
    try:
        return client.get(url).is_success
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    with httpx.Client(trust_env=False) as client:
        print(await_ready(sys.argv[1:], client), flush=True)
