"""Files of this machine and of what is mounted on it, by their paths; what the environment does wrong is repeated.

All functions raise Retryable where that does not help. Those that read leave the errors that are a file's own as they
are; those that write raise UserError for them: it was the user who named the place.
"""

import errno
import hashlib
import io
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from stat import S_IFBLK, S_IFCHR, S_IFIFO, S_IFMT, S_IFSOCK, S_ISDIR, S_ISREG
from typing import IO, TYPE_CHECKING

from ray_asd.errors import UserError
from ray_asd.store.environment import is_to_blame, repeated, said

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

ALLOWED = "a folder that is there or can be made, and may be written"
_DRAFT_CHARACTERS = 40  # of a file's name that its draft begins with, which must not be too long itself
_AGAIN = (0.01, 0.03, 0.1, 0.3, 1.0)  # seconds between tries to write into what others remove, and the other way round
_LONGEST_NAME = 255  # bytes of a file's name

Found = tuple[str, int, str]
"""A file's path, its size in bytes, its version."""
OTHERS = {S_IFIFO: "a FIFO", S_IFSOCK: "a socket", S_IFCHR: "a device", S_IFBLK: "a device"}


def exists(path: str) -> bool:
    """Whether a file or folder is there."""
    return status_of(path) is not None


def is_folder(path: str) -> bool:
    """Whether a folder is there."""
    status = status_of(path)
    return status is not None and S_ISDIR(status.st_mode)


@repeated
def status_of(path: str) -> os.stat_result | None:
    """What is at ``path``, or where the link there leads; None where there is nothing."""
    try:
        return os.stat(path)
    except OSError as error:
        if is_to_blame(error):
            raise
        return None


@repeated
def stat(path: str) -> Found | None:
    """The file at ``path``; None where there is none."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return (path, status.st_size, str(status.st_mtime)) if S_ISREG(status.st_mode) else None


@repeated
def read(path: str) -> bytes:
    """The whole content."""
    with open(path, "rb", opener=_at_once) as file:
        return file.read()


def _at_once(path: str, flags: int) -> int:
    """Opens a file as ``open`` does, except that it does not wait for whom may write into a FIFO.

    Raises:
        OSError: it is a FIFO, socket or device.
    """
    opened = os.open(path, flags | os.O_NONBLOCK)
    kind = OTHERS.get(S_IFMT(os.fstat(opened).st_mode))
    if kind:
        os.close(opened)
        raise OSError(errno.EINVAL, f"{kind}, not a file", path)
    return opened


def open_read(path: str) -> IO[bytes]:
    """The file, to seek and read in."""
    return io.BufferedReader(_opened(path))


@repeated
def sha256(path: str) -> str:
    """Hex digest of the content."""
    with open(path, "rb", opener=_at_once) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Steady(io.FileIO):
    """Reads on from where it was when the environment fails."""

    def readinto(self, buffer: "WriteableBuffer", /) -> int | None:
        return repeated(lambda path: super(_Steady, self).readinto(buffer))(str(self.name))

    def readall(self) -> bytes:
        start = self.tell()

        def whole(path: str) -> bytes:
            self.seek(start)  # what a failed attempt has read is lost
            return super(_Steady, self).readall()

        return repeated(whole)(str(self.name))


@repeated
def _opened(path: str) -> _Steady:
    return _Steady(path, opener=_at_once)


@repeated
def write(path: str, data: bytes) -> None:
    """Put ``data`` at ``path``, over what may be there."""
    _put(path, _writing(data), os.replace)


@repeated
def create(path: str, data: bytes) -> None:
    """Put ``data`` at ``path``.

    Raises:
        FileExistsError: something is there, which may be ours: a link whose answer was lost is made again.
    """
    _put(path, _writing(data), os.link)


@repeated
def copy(path: str, source: Path) -> None:
    """Put the content of ``source`` at ``path``, over what may be there."""
    _put(path, lambda draft: shutil.copyfile(source, draft), os.replace)


def _writing(data: bytes) -> Callable[[str], None]:
    def fill(draft: str) -> None:
        with open(draft, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    return fill


def _put(path: str, fill: Callable[[str], object], place: Callable[[str, str], None]) -> None:
    """Fill a hidden file beside ``path`` and ``place`` it there, anew while others remove the folder of both.

    Raises:
        UserError: nothing can be written at ``path``, for a reason that will not pass by.
        FileExistsError: by ``place``.
    """
    folder, last = os.path.split(path)
    draft = os.path.join(folder, f".{last[:_DRAFT_CHARACTERS]}.{uuid.uuid4().hex}")
    for wait in (*_AGAIN, None):
        try:
            _make(folder)
            fill(draft)
            place(draft, path)
            return
        except FileExistsError:
            raise
        except OSError as error:
            if is_to_blame(error):
                raise
            if wait is None or error.errno != errno.ENOENT:
                code = errno.errorcode.get(error.errno or 0, error.errno)
                raise UserError(f"{path}: cannot be written: {error} ({code}); allowed: {ALLOWED}") from error
        finally:
            with suppress(OSError):
                os.unlink(draft)
        time.sleep(wait)


def _make(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except FileExistsError as error:  # by a file of its name, or it was removed a moment after it was found there
        code = errno.ENOTDIR if os.path.lexists(folder) else errno.ENOENT
        raise OSError(code, os.strerror(code), folder) from error


def check_writable(path: str) -> None:
    """Return when a file or folder could be put at ``path``, as far as its nearest folder that is there tells.

    Raises:
        UserError: that is no folder, or may not be written; or a name is too long.
        Retryable: it is on a file system that is read-only.
    """
    if status_of(path) is None:
        folder, name = os.path.split(path)
        if len(os.fsencode(name)) > _LONGEST_NAME:
            raise UserError(f"{path}: cannot be written: a name of more than {_LONGEST_NAME} bytes; allowed: {ALLOWED}")
        check_writable(folder)
        return
    if not is_folder(path):
        raise UserError(f"{path} is no folder; allowed: {ALLOWED}")
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        raise said(path, OSError(errno.EROFS, ""))
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"{path}: nothing may be written there; allowed: {ALLOWED}")


def listing(path: str, below: str = "") -> Iterator[Found]:
    """All files below ``path`` by their relative paths and in order of these, hidden ones too; none where it is not.

    Raises:
        UserError: a folder may not be listed: to leave its files out unsaid would lose them.
    """
    found = scanned(os.path.join(path, below))
    for name, kind, size, version in sorted(found, key=place_in_order):
        if kind == "directory":
            yield from listing(path, f"{below}{name}/")
        else:
            yield f"{below}{name}", size, version


def place_in_order(scanned: tuple[str, str, int, str]) -> str:
    """By which what lies in a folder is sorted so that all paths below it come in order."""
    name, kind, *_ = scanned
    return f"{name}/" if kind == "directory" else name


def children(path: str, kind: str) -> list[str]:
    """Names of what lies directly below ``path`` and is a "file" or "directory"; links are neither.

    Raises:
        UserError: the folder may not be listed.
    """
    return [name for name, found, *_ in scanned(path) if found == kind]


@repeated
def scanned(path: str) -> list[tuple[str, str, int, str]]:
    """Name, kind, size and version of what lies directly in the folder at ``path``, if there is one."""
    try:
        with os.scandir(path) as entries:
            found = [_entry(entry) for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as error:
        raise UserError(f"{path}: the folder cannot be listed: {error.strerror}") from error
    return [entry for entry in found if entry is not None]


def _entry(entry: "os.DirEntry[str]") -> tuple[str, str, int, str] | None:
    """None for what is gone again. A link has its own time and that of what it leads to, and the size of that."""
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None
    kind = "directory" if S_ISDIR(status.st_mode) else "file" if S_ISREG(status.st_mode) else "other"
    size, version = status.st_size, str(status.st_mtime)
    if entry.is_symlink():
        target = status_of(entry.path)
        size, version = (target.st_size, f"{version} {target.st_mtime}") if target else (0, version)
    return entry.name, kind, size, version


@repeated
def remove(path: str) -> None:
    """Delete the file or folder, if it is there; others may remove it as well meanwhile, or write into it."""
    for wait in (*_AGAIN, None):
        try:
            if is_folder(path) and not os.path.islink(path):
                shutil.rmtree(path)
            elif os.path.lexists(path):
                os.remove(path)
            return
        except OSError as error:
            if wait is None or error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                raise
        time.sleep(wait)
