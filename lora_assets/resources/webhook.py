"""Where notices go: a Slack-compatible webhook."""

from html import escape
from typing import Any

import dagster as dg
import httpx
from pydantic import Field

from lora_assets.errors import LoraAssetsError
from lora_assets.serving.bounded_client import request

_TIMEOUT = 10.0


class Webhook(dg.ConfigurableResource[Any]):
    """Posts texts to `url`; off when that is empty. `ui_url` is where a browser finds Dagster.

    The URL holds the webhook's secret, so no message and no error names it.
    """

    url: str = Field("", repr=False)
    ui_url: str = ""

    def post(self, text: str) -> None:
        """Post one text. Raise LoraAssetsError unless the webhook took it."""
        # Slack reads what stands between < and > as a link, "<= 1; a_rate 0.5 >" of a gate too.
        escaped = escape(text, quote=False)
        try:
            reply = request("POST", self.url, _TIMEOUT, json={"text": escaped})
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._failed(type(error).__name__) from None
        if not reply.is_success:
            raise self._failed(f"status {reply.status_code}")

    def link(self, run_id: str) -> str:
        """Return where to look at a run: its page, or its id where Dagster's URL is not known."""
        return f"{self.ui_url.rstrip('/')}/runs/{run_id}" if self.ui_url else run_id

    def _failed(self, reason: str) -> LoraAssetsError:
        return LoraAssetsError(
            f"The webhook rejected a notice ({reason})",
            "Correct LORA_ASSETS_WEBHOOK or repair the server there; the notice will be retried.",
        )
