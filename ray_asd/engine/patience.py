"""How long work waits: for its place on the cluster, as the user wants it, and before it is tried again."""

import os

from ray_asd.errors import UserError

WAIT_VARIABLE = "RAY_ASD_WAIT_MINUTES"
_DEFAULT = 24 * 60.0
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0  # seconds between tries, doubled each time


def minutes() -> float:
    """How long work waits at most, in minutes.

    Raises:
        UserError: the variable holds no positive number.
    """
    given = os.environ.get(WAIT_VARIABLE, str(_DEFAULT))
    try:
        found = float(given)
    except ValueError:
        found = 0.0
    if not found > 0:
        raise UserError(f"{WAIT_VARIABLE}={given!r}; allowed: minutes, a number above 0")
    return found


def before_another_try(tries: int) -> float:
    """Seconds to wait after so many tries that have failed."""
    return min(_FIRST_WAIT * 2.0 ** (tries - 1), _LONGEST_WAIT)
