"""The judge: any OpenAI-compatible chat endpoint."""

from contextlib import AbstractAsyncContextManager
from typing import Any

import dagster as dg
import httpx
from pydantic import Field

from lora_assets.judging.grading import find_judge_model
from lora_assets.serving.http_client import Server, open_client

JUDGE = Server("The judge", "--judge-url", "JUDGE_API_KEY")


class Judge(dg.ConfigurableResource[Any]):
    """A judge model at `judge_url`; an empty `judge_model` is found by asking the server."""

    judge_url: str
    judge_model: str = ""
    api_key: str = Field("", repr=False)
    timeout: float = 120.0

    @property
    def address(self) -> str:
        """Where it is, as records, verdicts and the policy name it."""
        return self.judge_url.rstrip("/")

    def client(self) -> AbstractAsyncContextManager[httpx.AsyncClient]:
        """An HTTP client for the judge; `timeout` seconds bound each request."""
        return open_client(self.judge_url, self.timeout, self.api_key, JUDGE)

    async def model(self, client: httpx.AsyncClient) -> str:
        """The name of the model that grades."""
        return self.judge_model or await find_judge_model(client)
