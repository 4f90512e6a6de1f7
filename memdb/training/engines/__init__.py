"""Engines: the training loop in this process, in several on one machine, or on a Ray cluster."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from memdb.environment import install
from memdb.errors import InvalidInputError
from memdb.training.engines.local import LocalEngine
from memdb.training.engines.worker import Work, train_here
from memdb.training.loop import Engine

if TYPE_CHECKING:
    from memdb.training.engines.request import Request

__all__ = ["Work", "choose"]


def choose(work: Work, n_workers: int | None, request: Request | None) -> Engine:
    """Return the engine for this work: this process unless workers or Ray are requested.

    Raises:
        InvalidInputError: a number of workers below 1, GPUs for a device that has none, or none for one that
            is a GPU, or Ray is not installed.
    """
    if request is None:
        return partial(train_here, work) if n_workers is None else LocalEngine(work, n_workers)
    request.require_fitting(work.device)
    try:
        from memdb.training.engines.ray import RayEngine  # noqa: PLC0415 - optional, takes a second
    except ImportError as error:
        raise InvalidInputError(
            f"ray {request.address} needs Ray, which is not installed",
            hint=f"run: {install('ray')}",
            parameter="ray",
        ) from error
    return RayEngine(work, request)
