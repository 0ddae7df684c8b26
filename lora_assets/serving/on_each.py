"""One act on all replicas at once, with the cause of each failure."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from lora_assets.errors import LoraAssetsError

_MOST_AT_ONCE = 32
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def on_each(items: Sequence[_Item], act: Callable[[_Item], _Result]) -> Sequence[_Result]:
    """Run `act` on all at once and return its results, in order.

    When all are done, raise with the cause of each that failed.
    """
    with ThreadPoolExecutor(min(len(items), _MOST_AT_ONCE) or 1) as pool:
        running = [pool.submit(act, item) for item in items]
    results, errors = [], []
    for done in running:
        try:
            results.append(done.result())
        except LoraAssetsError as error:
            errors.append(error)
    if errors:
        raise LoraAssetsError("; ".join(dict.fromkeys(e.cause for e in errors)), errors[0].remedy)
    return results


def on_first_then_each(
    items: Sequence[_Item], act: Callable[[_Item], _Result]
) -> Sequence[_Result]:
    """Run `act` on the first, and as `on_each` on the others once that has succeeded."""
    return [*on_each(items[:1], act), *on_each(items[1:], act)]
