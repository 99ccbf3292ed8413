"""Where work is done: on the cluster, on a Ray of this command's own, or in its process; told without Ray."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from ray_asd.build.steps import Step
from ray_asd.config import Worker
from ray_asd.engine.address import cluster
from ray_asd.engine.progress import Progress, silent

_Made = TypeVar("_Made")


def on_ray(step: Step) -> bool:
    """Whether ``step`` is done on Ray: what needs no cluster is where there is one."""
    return step.on_ray or cluster() is not None


def placed(step: Step, progress: Progress) -> Step:
    """``step`` with its work done where it belongs."""
    if step.on_ray or not cluster():
        return step
    from ray_asd.engine.apart import apart

    return apart(step, progress)


def done(what: str, worker: Worker, work: Callable[[Progress], _Made], progress: Progress) -> _Made:
    """What ``work`` returns, which needs no cluster: on one it is a task of ``worker``, and tells no progress.

    Raises:
        UserError, StageError: as the work raised them, or there is no Ray to be had.
    """
    if not cluster():
        return work(progress)
    from ray_asd.engine import connection
    from ray_asd.engine.apart import call

    with connection.connected():
        return call(what, worker, partial(work, silent), progress)[0]
