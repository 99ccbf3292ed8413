"""Local copies of remote files, each called by the digest of its content, as many as a bound allows.

The processes of a machine share them. One fetches what several ask for, the others wait for its lock; whoever needs
room deletes what was asked for longest ago. What is open or mapped outlives that; what is about to be opened by the
path that was handed out is spared for ``_OPENED_SECONDS``, whatever the bound.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ray_asd.errors import StageError, UserError
from ray_asd.store.environment import watched
from ray_asd.store.uri import filesystem, is_remote, sha256

CACHE_VARIABLE = "RAY_ASD_CACHE"  # environment: where copies of remote files are kept, default ~/.cache/ray_asd
BOUND_VARIABLE = "RAY_ASD_CACHE_GB"  # environment: how many gigabytes of them
BOUND_GB = "50"  # where that says nothing
_OPENED_SECONDS = 600.0


def fetch(uri: str, digest: str) -> Path:
    """A local file with the content of ``uri``, whose sha256 is ``digest``: itself, or a cached copy of the object.

    It is to be opened soon: a copy that nobody has asked for lately may be gone.

    Raises:
        StageError: the object's content does not have that digest.
        UserError: ``BOUND_VARIABLE`` holds no size.
        Retryable: the object store or the disk of the copies fails.
    """
    if not is_remote(uri):
        return Path(uri)
    bound = _bound()
    copy = _folder() / digest
    with watched(str(copy)), _lock(copy):
        if copy.exists():
            os.utime(copy)
        else:
            _get(uri, digest, copy, bound)
    return copy


def cache_bytes() -> int:
    """How much the copies on this machine take."""
    folder = _folder()
    return sum(size for _, size, _ in _copies(folder)) if folder.is_dir() else 0


def _folder() -> Path:
    return Path(os.environ.get(CACHE_VARIABLE, Path.home() / ".cache" / "ray_asd"))


def _bound() -> float:
    given = os.environ.get(BOUND_VARIABLE, BOUND_GB)
    try:
        bound = float(given) * 1e9
    except ValueError:
        bound = 0.0
    if not bound > 0:
        raise UserError(f"{BOUND_VARIABLE}={given!r} is no size; allowed: a number of gigabytes above 0")
    return bound


def _lock(copy: Path) -> FileLock:
    """Of few files, since one that somebody may wait for can never be deleted; some copies share theirs."""
    locks = copy.parent / "locks"
    copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    locks.mkdir(exist_ok=True)
    return FileLock(locks / copy.name[:2])


def _get(uri: str, digest: str, copy: Path, bound: float) -> None:
    client, path = filesystem(uri)
    draft = copy.with_suffix(".part")
    _make_room(copy.parent, bound - client.size(path))
    try:
        client.get_file(path, str(draft))
        if sha256(str(draft)) != digest:
            raise StageError(f"{uri}: its content is not the recorded one (sha256 {digest[:12]})")
        draft.rename(copy)
    finally:
        draft.unlink(missing_ok=True)


def _make_room(folder: Path, bound: float) -> None:
    """Delete the copies that were asked for longest ago until all together have no more than ``bound`` bytes."""
    found = _copies(folder)
    total = sum(size for _, size, _ in found)
    for _, size, copy in sorted(found):
        if total <= bound:
            return
        if _deleted(copy):
            total -= size


def _copies(folder: Path) -> list[tuple[float, int, Path]]:
    """When each was last asked for, its size and its place."""
    found = []
    for copy in filter(Path.is_file, folder.iterdir()):
        with suppress(FileNotFoundError):  # another process makes room
            status = copy.stat()
            found.append((status.st_mtime, status.st_size, copy))
    return found


def _deleted(copy: Path) -> bool:
    """Whether the copy is gone; it stays where somebody asks for it at this moment or did so lately."""
    try:
        with _lock(copy).acquire(blocking=False), suppress(FileNotFoundError):
            if time.time() - copy.stat().st_mtime < _OPENED_SECONDS:
                return False
            copy.unlink()
    except Timeout:
        return False
    return True
