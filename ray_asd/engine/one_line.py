"""What Ray's errors say, in one line, and who can mend it."""

import sys

from ray.data.exceptions import SystemException
from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

from ray_asd import store
from ray_asd.engine.last_words import last_words
from ray_asd.errors import Retryable, StageError, UserError, kind


def first_line(error: BaseException) -> str:
    """What went wrong at the bottom of Ray's chain of causes, without its traceback.

    Ray Data ends a chain with a SystemException that says nothing.
    """
    while error.__cause__ and not isinstance(error, RayTaskError) and not isinstance(error.__cause__, SystemException):
        error = error.__cause__
    inner = error.cause if isinstance(error, RayTaskError) else error
    lines = [line.strip() for line in str(inner).splitlines() if line.strip("= ")]
    return f"{type(inner).__name__}: {lines[0] if lines else 'no message'}"


def told(what: str, *errors: BaseException) -> UserError | StageError:
    """The error to raise for ``errors`` of the workers of ``what``.

    What one of them says in our words counts before the loss of another, and that before what the others, left alone,
    say of it.
    """
    for error in errors:
        if isinstance(error, (UserError, StageError)):
            return kind(error)(f"{what}: {error}")
    lost = next((error for error in errors if _passes_by(error)), None)
    failed = (Retryable if lost else StageError)(f"{what}: {first_line(lost or errors[0])}")
    if any(_has_lost_a_process(error) for error in errors) and (said := last_words()):
        failed.add_note(said)  # for the record's traceback
    return failed


def _passes_by(error: BaseException) -> bool:
    """Whether another try may end better: workers or nodes that went away, storage that failed."""
    if isinstance(error, OSError):
        return store.is_to_blame(error)
    return _has_lost_a_process(error) and not isinstance(error, OutOfMemoryError)


def _has_lost_a_process(error: BaseException) -> bool:
    of_train = sys.modules.get("ray.train.v2._internal.exceptions")  # which only those load that train
    kinds = (RayError, of_train.RayTrainError) if of_train else (RayError,)
    return isinstance(error, kinds) and not isinstance(error, RayTaskError)
