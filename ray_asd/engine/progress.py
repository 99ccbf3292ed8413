"""How stages tell what they are doing: a callable that the command line turns into lines on stderr."""

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def silent(what: str, done: int, total: int) -> None:
    """For callers that show nothing."""
