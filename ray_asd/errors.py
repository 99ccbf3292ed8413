"""What can go wrong, by who can mend it. The command line turns each into one line and an exit code."""

import re

_CREDENTIALS = re.compile(r"(\w+://)[^\s/@\"',]*:[^\s@\"',]*@")  # of a URL; a key of AWS may hold slashes


class UserError(Exception):
    """A wrong value, setting or place. The message names the wrong value and the allowed ones. Exit code 2."""


class Forbidden(UserError, PermissionError):
    """An object that may not be read: archived, another owner's, or sealed with a key that may not be used.

    To whoever can go on without it an OSError of that object, as of a file on disk; to everyone else a UserError.
    """


class StageError(Exception):
    """Work that was started and could not be finished. Exit code 1."""


class Futile(StageError):
    """Work that would end in the same way if it was tried again. Exit code 1."""


STOPPED = "stopped by SIGTERM; the same command goes on where it was"


class Retryable(StageError):
    """What the environment broke off: storage, credentials, nodes, SIGTERM. The same command goes on. Exit code 75."""


class Unplaced(Retryable):
    """Work that got no place on the cluster in the time that it may wait."""


class Rejected(StageError):
    """A recording or archive that is not taken; ``reason`` is a key of ``reasons.REJECTED``."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class LeaseLost(StageError):
    """Another process took over this training run while this one still worked on it."""


def unknown(what: str, value: object, allowed: object) -> UserError:
    """The error for a name that is not one of a known set, e.g. ``unknown("layout", "dcase1999", LAYOUTS)``."""
    names = ", ".join(str(name) for name in allowed)  # type: ignore[attr-defined]
    return UserError(f"unknown {what} {str(value)!r}; allowed: {names}")


def decoded(what: str, data: bytes) -> str:
    """The text of ``what`` a user wrote, with or without a byte order mark.

    Raises:
        UserError: it is not UTF-8.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1  # which has no mark
        raise UserError(f"{what}: line {line} is not UTF-8; allowed: text in UTF-8") from error


def redacted(text: str) -> str:
    """``text`` without the credentials in its URLs, such as ``s3://KEY:SECRET@bucket``."""
    return _CREDENTIALS.sub(r"\1***@", text)


def kind(error: UserError | StageError) -> type[UserError | StageError]:
    """Who can mend it, whatever else its class tells: UserError, Retryable or StageError."""
    return next(kind for kind in (UserError, Retryable, StageError) if isinstance(error, kind))
