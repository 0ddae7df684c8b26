"""A key is for the origin that it was configured with, and for no other."""

import re
from collections.abc import Mapping

KEYS = {"vllm_url": ("vllm_api_key", "vllm_admin_key"), "judge_url": ("judge_api_key",)}
"""The settings that are the keys of the server that a setting names."""


def keys_withheld(given: Mapping[str, str], configured: Mapping[str, str]) -> Mapping[str, str]:
    """Return the keys that the servers `given` do not get, as empty settings.

    Both are URLs by their setting. An option, which may come from a parameter of Argo's, sends a
    key to no other origin.
    """
    return {
        key: ""
        for option, keys in KEYS.items()
        if option in given and origin(given[option]) != origin(configured[option])
        for key in keys
    }


def origin(url: str) -> tuple[str, str]:
    """Return the scheme of a URL, and its host with the port where that is not the scheme's."""
    scheme, _, rest = url.lower().partition("://")
    default = {"http": ":80", "https": ":443"}.get(scheme, "")
    return scheme, re.split("[/?#]", rest)[0].removesuffix(default)
