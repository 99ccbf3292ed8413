"""The Hugging Face hub, and what its cache on this machine holds: each is asked for what the other cannot say."""

import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub import HfApi
from huggingface_hub.constants import HF_HUB_ETAG_TIMEOUT
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

from ray_asd import store
from ray_asd.config import RANDOM_SIZES
from ray_asd.errors import UserError

_MAIN = "main"  # the hub's own branch
_TOO_MANY_REQUESTS = 429


@dataclass(frozen=True)
class Commit:
    """A repository at a commit, and the files that it has at ``place``, which is the hub or this machine's cache."""

    repository: str
    digest: str
    files: frozenset[str]
    place: str

    def read(self, name: str) -> bytes:
        """One of its files, downloaded where it is not in the cache.

        Raises:
            UserError: it cannot be had.
        """
        return download(self.repository, name, self.digest).read_bytes()


class OutOfReach(UserError):
    """The hub said nothing of what it was asked for: this machine is offline, or the hub fails."""


def asked(repository: str, revision: str | None) -> Commit:
    """What the hub says that a branch, a tag, a commit or its own branch is now.

    Raises:
        UserError: there is no such thing.
        OutOfReach: it does not say.
    """
    try:
        info = HfApi().model_info(repository, revision=revision, timeout=HF_HUB_ETAG_TIMEOUT)
    except (HTTPError, HFValidationError, OSError) as error:
        raise _refused(repository, revision, error) from error
    files = frozenset(file.rfilename for file in info.siblings or [])
    return Commit(repository, str(info.sha), files, repository)


def cached(repository: str, revision: str | None) -> Commit | None:
    """What it was when something of it was last downloaded to this machine; None where the cache does not say."""
    revision = revision or _MAIN
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", repository) or not all(map(store.is_file_name, revision.split("/"))):
        return None
    config = huggingface_hub.try_to_load_from_cache(repository, "config.json", revision=revision)
    if not isinstance(config, str):
        return None
    snapshot = Path(config).parent
    files = frozenset(name for name in os.listdir(snapshot) if (snapshot / name).is_file())
    return Commit(repository, snapshot.name, files, f"{repository} in the hub's cache on {socket.gethostname()}")


def download(repository: str, name: str, commit: str) -> Path:
    """The local copy of a file.

    Raises:
        UserError: it cannot be had.
    """
    try:
        return Path(huggingface_hub.hf_hub_download(repository, name, revision=commit))
    except (HTTPError, OSError) as error:
        raise _refused(repository, commit, error) from error


def _refused(repository: str, revision: str | None, error: Exception) -> UserError:
    where = f"{repository} at revision {revision}" if revision else repository
    sizes = ", ".join(f"random:{size}" for size in RANDOM_SIZES)
    kind = OutOfReach if _says_nothing(error) else UserError
    return kind(
        f"backbone.source {where}: not found on the Hugging Face hub, or {socket.gethostname()} cannot reach the hub "
        f"({type(error).__name__}) and lacks it in its cache; allowed: a hub id, an existing local directory, an s3:// "
        f"URI, {sizes}; fetch-weights copies a checkpoint to where no hub is needed"
    )


def _says_nothing(error: Exception) -> bool:
    if isinstance(error, HfHubHTTPError):
        status = int(error.response.status_code)
        return status >= 500 or status == _TOO_MANY_REQUESTS
    return not isinstance(error, HFValidationError)
