"""serve: the embedded model server, with its adapters back in place before it listens."""

import socket
from pathlib import Path
from threading import Thread
from urllib.parse import SplitResult, urlsplit

import click

from lora_assets.cli.restore import restore_adapters
from lora_assets.cli.stack import Stack
from lora_assets.embedded.child import start_child
from lora_assets.embedded.server.options import ServerOptions
from lora_assets.embedded.vllm_server import vllm_command
from lora_assets.errors import LoraAssetsError
from lora_assets.heavy_imports import heavy_imports
from lora_assets.serving.replica_folder import shared_folder
from lora_assets.training import require_torch


@click.command()
@click.option("--host", default=None, help="Address to listen on  [default: value of VLLM_URL]")
@click.option(
    "--port",
    default=None,
    type=click.IntRange(1, 65535),
    help="Port to listen on  [default: value of VLLM_URL]",
)
def serve(host: str | None, port: int | None) -> None:
    """Serve the embedded model, its adapters and the judge.

    The API is vLLM's.
    """
    stack = Stack({})
    url = urlsplit(stack.settings.vllm_url)
    host, port = host or url.hostname or "127.0.0.1", port or url.port or 8000
    require_free_port(host, port)
    folder = shared_folder(stack.settings.adapters_dir)
    restored, _ = restore_adapters(stack.resources, folder)
    options = ServerOptions(
        host=host,
        port=port,
        base_model=Path(stack.settings.base_model),
        served_model_name=stack.settings.base_model_name,
        adapters_dir=Path(stack.settings.adapters_dir),
        lora_modules={name: Path(folder.path) / digest for name, digest in restored.items()},
        api_key=stack.settings.vllm_api_key or None,
        admin_key=stack.settings.vllm_admin_key,
    )
    if stack.settings.vllm_python:
        _serve_vllm(stack.settings.vllm_python, options, urlsplit(stack.settings.judge_url))
        return
    require_torch()
    with heavy_imports():
        from lora_assets.embedded.server.process import serve as run_server

    run_server(options)


def _serve_vllm(python: str, options: ServerOptions, judge: SplitResult) -> None:
    """Run vLLM as a child and the lexical judge here, until one of them ends."""
    import uvicorn
    from fastapi import FastAPI

    from lora_assets.embedded.judge_app import create_judge_app

    judge_host, judge_port = judge.hostname or "127.0.0.1", judge.port or 8001
    require_free_port(judge_host, judge_port)
    command, environment = vllm_command(python, options)
    app = FastAPI()
    app.mount("/judge", create_judge_app())
    server = uvicorn.Server(uvicorn.Config(app, judge_host, judge_port, log_level="warning"))
    vllm = start_child(command, environment)

    def end_with_vllm() -> None:
        vllm.wait()
        server.should_exit = True

    Thread(target=end_with_vllm, daemon=True).start()
    try:
        server.run()
    finally:
        vllm.terminate()
        vllm.wait()


def require_free_port(host: str, port: int) -> None:
    """Raise for an address that another program listens on."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise LoraAssetsError(
                f"Can't listen on {host}:{port} ({error.strerror})",
                "Stop what listens there, or choose another port with VLLM_URL.",
            ) from None
