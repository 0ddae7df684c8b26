"""Run the embedded server as a process: `python -m … OPTIONS`, in JSON, or `serve`."""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Iterator

import torch
import uvicorn
from fastapi import FastAPI

from lora_assets.embedded.judge_app import create_judge_app
from lora_assets.embedded.server.api import create_app
from lora_assets.embedded.server.api_error import ApiError
from lora_assets.embedded.server.batching import Engine
from lora_assets.embedded.server.decoder import Decoder
from lora_assets.embedded.server.metrics import ServerMetrics
from lora_assets.embedded.server.options import ServerOptions
from lora_assets.embedded.server.prompts import Prompts
from lora_assets.errors import LoraAssetsError

logger = logging.getLogger(__name__)


def start_engine(options: ServerOptions) -> Engine:
    """Load the base model and start decoding; close() it in the end."""
    decoder = Decoder(options.base_model)
    prompts = Prompts(options.base_model, decoder.max_length, decoder.vocabulary)
    metrics = ServerMetrics(options.served_model_name, options.max_loras)
    return Engine(decoder, prompts.tokenizer, metrics, options)


def serve(options: ServerOptions) -> None:
    """Serve until SIGINT or SIGTERM, then finish the requests under way and return.

    Raise LoraAssetsError when the port is taken, or when the base model or one of
    `lora_modules` can't be loaded.
    """
    # The engine has two threads of its own. OpenMP threads that wait for each other do so for
    # whole time slices on cores that are not free (measured: over ten times slower).
    torch.set_num_threads(1)
    listening = _bind(options.host, options.port)
    engine = start_engine(options)
    try:
        app = create_app(engine, options, create_judge_app())
        asyncio.run(_run(app, options, listening))
    finally:
        engine.close()
        listening.close()


class _Server(uvicorn.Server):
    """A server that ends on a signal and leaves it at that; uvicorn raises the signal again."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def leave(self) -> None:
        """Take no more requests and finish those under way; at once when asked twice."""
        self.force_exit = self.should_exit
        self.should_exit = True


async def _run(app: FastAPI, options: ServerOptions, listening: socket.socket) -> None:
    for name, folder in options.lora_modules.items():
        try:
            await app.state.adapters.load(name, str(folder), load_inplace=False)
        except ApiError as error:
            raise LoraAssetsError(
                error.message.rstrip("."), f"Give a fitting adapter for {name}."
            ) from None
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=30)
    server = _Server(config)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, server.leave)
    logger.info("Serving on http://%s:%s", *listening.getsockname()[:2])
    await server.serve(sockets=[listening])


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise LoraAssetsError(
            f"The server can't listen on {host}:{port}: {error.strerror}",
            "Stop what listens there or give another port.",
        ) from None
    return listening


if __name__ == "__main__":
    serve(ServerOptions.model_validate_json(sys.argv[1]))
