"""serve: the embedded model server, with its adapters back in place before it listens."""

import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import click

from lora_assets.assets.eval_grades import LIVE_SLOT
from lora_assets.assets.served import fetch
from lora_assets.assets.staged_deployment import CANDIDATE_SLOT
from lora_assets.cli.stack import Stack
from lora_assets.errors import LoraAssetsError
from lora_assets.resources.fleet import Fleet
from lora_assets.resources.registry import Registry
from lora_assets.resources.work_folder import WorkFolder

RESTORED = {"live": LIVE_SLOT, "staged": CANDIDATE_SLOT, "previous": None}
"""The aliases whose adapters a server that starts must have, and the slots that serve them."""


@click.command()
@click.option("--host", default=None, help="Address to listen on  [default: that of VLLM_URL]")
@click.option("--port", default=None, type=click.IntRange(1, 65535), help="Port to listen on")
def serve(host: str | None, port: int | None) -> None:
    """Serve the embedded base model and its adapters through vLLM's API, and the lexical judge."""
    stack = Stack({})
    url = urlsplit(stack.settings.vllm_url)
    host, port = host or url.hostname or "127.0.0.1", port or url.port or 8000
    require_free_port(host, port)
    modules = restore(stack.resources.registry, stack.resources.fleet, stack.resources.work_folder)
    from lora_assets.engines.server.options import ServerOptions
    from lora_assets.engines.server.serve import serve as run_server

    run_server(
        ServerOptions(
            host=host,
            port=port,
            base_model=Path(stack.settings.base_model),
            served_model_name=stack.settings.base_model_name,
            adapters_dir=stack.settings.adapters_dir,
            lora_modules=modules,
            api_key=stack.settings.vllm_api_key or None,
        )
    )


def restore(registry: Registry, fleet: Fleet, work_folder: WorkFolder) -> Mapping[str, Path]:
    """Put the adapters of the aliases back on disk and in their slots: serving name to folder."""
    modules: dict[str, Path] = {}
    aliases = registry.aliases()
    for alias, slot in RESTORED.items():
        version = aliases.get(alias)
        if version is None:
            continue
        fetch(registry, fleet, version, work_folder)
        modules[version.serving_name] = fleet.folder(version.digest)
        if slot is not None:
            fleet.link(slot, version.digest)
            modules[slot] = fleet.folder(version.digest)
    return modules


def require_free_port(host: str, port: int) -> None:
    """Refuse, in one line, an address that another program listens on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise LoraAssetsError(
                f"Can't listen on {host}:{port} ({error.strerror})",
                "Stop what listens there, or choose another port with VLLM_URL.",
            ) from None
