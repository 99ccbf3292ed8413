"""Local copies of remote files, each called by the digest of its content."""

import os
import uuid
from pathlib import Path

from ray_asd.errors import StageError
from ray_asd.store.environment import watched
from ray_asd.store.uri import filesystem, is_remote, sha256

CACHE_VARIABLE = "RAY_ASD_CACHE"  # environment: where copies of remote files are kept, default ~/.cache/ray_asd


def fetch(uri: str, digest: str) -> Path:
    """A local file with the content of ``uri``, whose sha256 is ``digest``: itself, or a cached copy of the object.

    Raises:
        StageError: the object's content does not have that digest.
        Retryable: the object store or the disk of the copies fails.
    """
    if not is_remote(uri):
        return Path(uri)
    cache = Path(os.environ.get(CACHE_VARIABLE, Path.home() / ".cache" / "ray_asd"))
    copy = cache / digest
    with watched(str(copy)):
        if not copy.exists():
            _get(uri, digest, copy)
    return copy


def _get(uri: str, digest: str, copy: Path) -> None:
    copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    client, path = filesystem(uri)
    draft = copy.with_name(f"{digest}.{uuid.uuid4().hex}")
    try:
        client.get_file(path, str(draft))
        if sha256(str(draft)) != digest:
            raise StageError(f"{uri}: its content is not the recorded one (sha256 {digest[:12]})")
        draft.rename(copy)
    finally:
        draft.unlink(missing_ok=True)
