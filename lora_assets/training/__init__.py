"""QLoRA training: rows in, one safetensors adapter and its measurements out."""

import logging

# On a CPU with AVX-512 bitsandbytes looks for a kernel to download when peft imports it, and
# warns that it found none. It isn't wanted: nothing is downloaded but what was asked for.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
