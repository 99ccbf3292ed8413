"""Work that needs no cluster is done on one where there is one: drivers sit on its head, which everybody shares."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from ray_asd.build import Attempt, Held, Outcome, Output
from ray_asd.build.steps import Step
from ray_asd.config import Worker
from ray_asd.engine import placement
from ray_asd.engine.one_line import told
from ray_asd.engine.progress import Progress
from ray_asd.engine.waiting import Waiting
from ray_asd.errors import StageError, UserError

_LOOK_SECONDS = 2.0
_Made = TypeVar("_Made")


def apart(step: Step, progress: Progress) -> Step:
    """``step`` with its work done by one task, which has the CPUs and the memory of the step's worker."""
    return replace(step, work=lambda attempt, inputs: _run(step, attempt, inputs, progress))


def _run(step: Step, attempt: Attempt, inputs: Mapping[str, Output], progress: Progress) -> Outcome:
    outcome, held = call(f"{step.stage} {step.name}", step.worker, partial(step.work, attempt, inputs), progress)
    return replace(outcome, held=held)


def call(what: str, worker: Worker, work: Callable[[], _Made], progress: Progress) -> tuple[_Made, Held]:
    """What ``work`` returns in a task of this worker, and what that held.

    Raises:
        UserError, StageError: as the work raised them.
        Retryable: its node was lost more often than Ray tries again.
    """
    placement.check_fits(what, worker)
    waiting = Waiting(what, worker, 1, progress)
    with waiting.place(1, 1) as grant:
        said = _work.options(**placement.options(worker)).remote(work)
        try:
            while not ray.wait([said], timeout=_LOOK_SECONDS)[0]:
                waiting.look()
            waiting.begin()
            made: _Made
            _, made = (ray.get(each) for each in said)
        except RayTaskError as error:  # which is of the class of its cause too
            if isinstance(error.cause, (UserError, StageError)):
                raise error.cause from error
            raise told(what, error) from error
        except StageError:
            ray.cancel(said)
            raise
        except RayError as error:
            raise told(what, error) from error
    return made, grant.held


@ray.remote  # type: ignore[untyped-decorator]
def _work(work: Callable[[], object]) -> Iterator[object]:
    """A generator, whose first word says that it has its place."""
    yield None
    yield work()
