"""Where the cluster is, told without importing Ray."""

import os

_OWN = "local"  # Ray's word for a Ray of this command's own


def cluster() -> str | None:
    """The address of the cluster to work on, ``RAY_ADDRESS``; None for a Ray of this command's own."""
    address = os.environ.get("RAY_ADDRESS", "").strip()
    return None if address in ("", _OWN) else address
