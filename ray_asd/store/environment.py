"""Which errors of a local file system are the environment's: tried again for some seconds, then said in one line.

An error is a file's own where ``_OWN`` holds its number: it says something of this path, or of what was asked of it,
and stays as it is. All others are the environment's, known here or not: a disk or mount that fails (EIO, ESTALE,
ETIMEDOUT, ENOTCONN), a process or machine that has run out of something (EMFILE, ENFILE, ENOMEM, EAGAIN). They pass by,
mostly, so what met one is done anew; where there is no room (``_FULL``) somebody has to make some first.
"""

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from ray_asd.errors import Retryable

_OWN = {
    *(None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.EACCES, errno.EPERM),
    *(errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.EILSEQ, errno.ENXIO, errno.ESPIPE, errno.ETXTBSY),
    *(errno.EFBIG, errno.EOVERFLOW, errno.EXDEV, errno.EMLINK, errno.EBADF, errno.ENOSYS, errno.EOPNOTSUPP),
}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_WAITS = (0.1, 0.2, 0.4, 0.8, 1.6)  # seconds between attempts

_Parameters = ParamSpec("_Parameters")
_Answer = TypeVar("_Answer")


def is_to_blame(error: OSError) -> bool:
    """Whether ``error`` says nothing of the file that was asked for."""
    return error.errno not in _OWN


def said(path: str, error: OSError) -> Retryable:
    """The one line for an error of the environment."""
    number = error.errno or 0
    return Retryable(f"{path}: {os.strerror(number)} ({errno.errorcode.get(number, number)})")


@contextmanager
def watched(path: str) -> Iterator[None]:
    """For a block that cannot be done anew: an error of the environment is a ``Retryable``."""
    try:
        yield
    except OSError as error:
        if not is_to_blame(error):
            raise
        raise said(path, error) from error


def repeated(
    act: Callable[Concatenate[str, _Parameters], _Answer],
) -> Callable[Concatenate[str, _Parameters], _Answer]:
    """``act``, whose first argument is a local path, done anew where the environment failed, then a ``Retryable``."""

    @wraps(act)
    def done(path: str, /, *arguments: _Parameters.args, **named: _Parameters.kwargs) -> _Answer:
        for wait in _WAITS:
            try:
                return act(path, *arguments, **named)
            except OSError as error:
                if not is_to_blame(error):
                    raise
                if error.errno in _FULL:
                    raise said(path, error) from error
            time.sleep(wait)
        with watched(path):
            return act(path, *arguments, **named)

    return done
