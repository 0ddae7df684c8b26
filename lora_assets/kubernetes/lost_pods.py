"""A step whose pod is lost begins again; a step that fails has failed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from functools import wraps
from inspect import isgeneratorfunction
from typing import Any

import dagster as dg
from dagster._core.definitions.decorators.op_decorator import DecoratedOpFunction

LOST_POD = dg.RetryPolicy(max_retries=3)
"""Spot nodes are taken away in the midst of four hours' training, rarely more often than this."""


def retry_lost_pods(definition: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """The asset or check, run again when its pod was killed or drained.

    Dagster has one retry policy for a lost pod and for an exception alike. Whatever raises
    would raise again, on a GPU that is paid for: an exception is therefore turned into a
    Failure that allows no retry. Where a policy is, an interrupt is retried too, so that only
    steps with a pod of their own may have one: elsewhere nobody could stop a run.
    """
    op = copy(definition.op)
    function = op.compute_fn
    assert isinstance(function, DecoratedOpFunction)
    # Dagster has no public way to set these on an asset that exists; its own are for an op in
    # a graph.
    op._compute_fn = DecoratedOpFunction(_without_retries(function.decorated_fn))
    op._retry_policy = LOST_POD
    attributes = {**definition.get_attributes_dict(), "node_def": op}
    return type(definition).dagster_internal_init(**attributes)


def _without_retries(body: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(body)
    def run(*args: Any, **kwargs: Any) -> Any:
        with _exceptions_are_final():
            return body(*args, **kwargs)

    @wraps(body)
    def run_generator(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with _exceptions_are_final():
            yield from body(*args, **kwargs)

    return run_generator if isgeneratorfunction(body) else run


@contextmanager
def _exceptions_are_final() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise dg.Failure(str(error), allow_retries=False) from error
