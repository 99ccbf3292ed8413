"""Whether a place can be written to, and on conditions: markers and leases rest on these, which some stores ignore."""

import uuid
from functools import lru_cache

from ray_asd.errors import Retryable, StageError, UserError
from ray_asd.store import local
from ray_asd.store.uri import create, exists, is_remote, join

PROBE = ".conditional-writes"  # stays below the root, so that of any number of processes none needs to be the first
_ALLOWED = "allowed: an S3 store that knows If-None-Match, a folder that may be written and knows hard links"


@lru_cache
def check_conditional_writes(root: str) -> None:
    """Return when of two writes below ``root`` that must create a file the second is refused; asked once per process.

    Raises:
        UserError: it is not, or nothing can be written there.
    """
    place = join(root, PROBE)
    try:
        ignored = all(create(place, uuid.uuid4().bytes) for _ in range(2))
    except Retryable:
        raise
    except UserError as error:
        if is_remote(root):
            raise
        raise UserError(f"{root}: conditional writes are refused there: {error.__cause__}; {_ALLOWED}") from error
    except (StageError, OSError) as error:
        raise UserError(f"{root}: conditional writes are refused there: {error}; {_ALLOWED}") from error
    if ignored:
        raise UserError(f"{root}: conditional writes overwrite there what another run has written; {_ALLOWED}")


def check_writable(uri: str) -> None:
    """Return when files can be put below ``uri``, as far as can be told without putting one there.

    Raises:
        UserError, Retryable: a file stands in the way, the folder may not be written, there is no such bucket.
    """
    if is_remote(uri):
        exists(uri)
    else:
        local.check_writable(uri)
