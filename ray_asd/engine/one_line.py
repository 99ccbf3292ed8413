"""What Ray's errors say, in one line."""

from ray.data.exceptions import SystemException
from ray.exceptions import RayTaskError


def first_line(error: BaseException) -> str:
    """What went wrong at the bottom of Ray's chain of causes, without its traceback.

    Ray Data ends a chain with a SystemException that says nothing.
    """
    while error.__cause__ and not isinstance(error, RayTaskError) and not isinstance(error.__cause__, SystemException):
        error = error.__cause__
    inner = error.cause if isinstance(error, RayTaskError) else error
    lines = [line.strip() for line in str(inner).splitlines() if line.strip("= ")]
    return f"{type(inner).__name__}: {lines[0] if lines else 'no message'}"
