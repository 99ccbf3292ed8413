"""Whether a store has conditional writes, on which markers and leases rest: some take the condition and ignore it."""

import uuid
from functools import lru_cache

from ray_asd.errors import Retryable, StageError, UserError
from ray_asd.store.uri import create, is_remote, join

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
