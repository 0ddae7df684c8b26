"""What runs inside vLLM and on each replica: the standard library and vLLM alone.

vLLM imports it as the package `lora_assets_vllm` (`serving/plugin_files.py` puts it there).
"""
