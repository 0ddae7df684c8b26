"""A step whose pod is lost begins again; a step that fails has failed.

This file alone uses what Dagster keeps private. Dagster sets a retry policy where an asset is
defined and not on an asset that exists, and has one policy for a lost pod (dagster#16168) and for
an exception alike.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from functools import wraps
from inspect import isgeneratorfunction
from typing import Any

import dagster as dg

_in_run: ContextVar[bool] = ContextVar("in_run", default=False)


class _LostPod(dg.RetryPolicy):
    """A policy that is none for a step in the run's own process.

    There Dagster would retry a step whose run is stopped or drained (dagster#15026). Without a
    policy the interrupt ends the run, and run monitoring replaces a drained one as a whole.
    """

    def __bool__(self) -> bool:
        return not _in_run.get()


LOST_POD = _LostPod(max_retries=3)
"""Spot nodes are taken away during four hours of training, rarely more often than this."""


@contextmanager
def no_pods_to_lose() -> Iterator[None]:
    """Have no step that is executed meanwhile, in this process, retried."""
    token = _in_run.set(True)
    try:
        yield
    finally:
        _in_run.reset(token)


def retry_lost_pods(definition: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """Return the asset or check such that it is run again when its pod was killed or drained.

    Whatever raises would raise again, on a GPU that is paid for: an exception becomes a Failure
    that allows no retry. An interrupt is retried wherever a policy is set (dagster#15026), so
    only steps with a pod of their own may have one: no other run could be stopped.
    """
    op: Any = copy(definition.op)
    body = op.compute_fn.decorated_fn
    op._compute_fn = op.compute_fn._replace(decorated_fn=_without_retries(body))
    op._retry_policy = LOST_POD
    attributes = {**definition.get_attributes_dict(), "node_def": op}
    return type(definition).dagster_internal_init(**attributes)


def _without_retries(body: Callable[..., Any]) -> Callable[..., Any]:
    if not isgeneratorfunction(body):
        return _exceptions_are_final()(body)

    @wraps(body)
    def run(*args: Any, **kwargs: Any) -> Iterator[Any]:
        with _exceptions_are_final():
            yield from body(*args, **kwargs)

    return run


@contextmanager
def _exceptions_are_final() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise dg.Failure(str(error), allow_retries=False) from error
