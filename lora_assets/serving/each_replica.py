"""The same step on many replicas at once."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from lora_assets.errors import LoraAssetsError

_MOST_AT_ONCE = 32
_Item = TypeVar("_Item")


def on_each(items: Sequence[_Item], act: Callable[[_Item], None]) -> None:
    """Run `act` on all at once; once all are done, raises with the cause of each that failed."""
    with ThreadPoolExecutor(min(len(items), _MOST_AT_ONCE) or 1) as pool:
        running = [pool.submit(act, item) for item in items]
    errors = [error for done in running if (error := done.exception()) is not None]
    for error in errors:
        if not isinstance(error, LoraAssetsError):
            raise error
    if errors:
        named = [error for error in errors if isinstance(error, LoraAssetsError)]
        raise LoraAssetsError(
            "; ".join(dict.fromkeys(error.cause for error in named)), named[0].remedy
        )
